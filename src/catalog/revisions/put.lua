-- Adds a revision and makes it the current one, unless another one is current than is expected.
-- KEYS[1]: the catalog. ARGV: what is current by expectation, what shall be; the revision's number, what is said of it, its
-- documents; how many revisions are kept, and how many bytes of documents.
local current = redis.call('HGET', KEYS[1], 'current') or ''
local number = tonumber(ARGV[3])
local function field(n) return 'r' .. string.format('%d', n) end
if current == ARGV[2] and redis.call('HGET', KEYS[1], field(number)) == ARGV[4] then return 1 end -- repeated, its answer was lost
if current ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], field(number), ARGV[4], field(number) .. ':documents', ARGV[5], 'current', ARGV[2])
-- The one that was current is kept too: workers may be about to read it. If it is older than what is kept (numbers jump
-- where Redis has forgotten some), it is the next call that forgets it.
local before = tonumber(string.match(current, '^%d+'))
local kept, oldest = tonumber(ARGV[6]), number - tonumber(ARGV[6])
local function forget(n) redis.call('HDEL', KEYS[1], field(n), field(n) .. ':documents') end
local spared = redis.call('HGET', KEYS[1], 'spared')
if spared then
  forget(tonumber(spared))
  redis.call('HDEL', KEYS[1], 'spared')
end
if before then
  -- Every call leaves but these: nothing lies below them, and nothing between them and a number that jumped.
  for n = math.max(before - kept + 1, 1), math.min(before - 1, oldest) do forget(n) end
  if before <= oldest then redis.call('HSET', KEYS[1], 'spared', string.format('%d', before)) end
end
local bytes = #ARGV[5]
for n = number - 1, math.max(oldest + 1, 1), -1 do
  bytes = bytes + redis.call('HSTRLEN', KEYS[1], field(n) .. ':documents')
  if bytes > tonumber(ARGV[7]) and n ~= before then
    forget(n)
  end
end
return 1
