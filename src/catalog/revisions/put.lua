-- Adds a revision and makes it the current one, unless another one is current than is expected.
-- KEYS[1]: the catalog. ARGV: what is current by expectation, what shall be; the revision's field, what is said of it, its
-- documents; the field of a revision that is forgotten.
local current = redis.call('HGET', KEYS[1], 'current') or ''
if current == ARGV[2] and redis.call('HGET', KEYS[1], ARGV[3]) == ARGV[4] then return 1 end -- repeated, its answer was lost
if current ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4], ARGV[3] .. ':documents', ARGV[5], 'current', ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[6], ARGV[6] .. ':documents')
return 1
