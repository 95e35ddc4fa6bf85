-- What the workers of a fleet share about capacity. KEYS[1]: the key. ARGV[1]: the request, then its fields.
-- The arithmetic is that of src/domain/flow.rs; the time is the server's, so that workers' clocks do not matter.
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)
local function int(number) return string.format('%.0f', number) end

local request = ARGV[1]

if request == 'slots' then
  local interval, want, ahead = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local free = tonumber(redis.call('GET', KEYS[1]) or '0')
  local first = math.max(free, now_us)
  local wait = first - now_us
  if wait > ahead then return {int(wait - ahead), '0'} end
  local next_us = first + interval * want
  redis.call('SET', KEYS[1], int(next_us), 'PX', int(math.ceil((next_us - now_us) / 1000) + 1000))
  return {int(wait), int(want)}

elseif request == 'share' then
  local worker, limit, want, workers, ttl = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local others = 0
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local count, expires = string.match(all[i + 1], '^(%d+) (%d+)$')
    if not count or tonumber(expires) <= now_ms then
      redis.call('HDEL', KEYS[1], all[i])
    elseif all[i] ~= worker then
      others = others + tonumber(count)
    end
  end
  local granted = math.min(want, math.max(limit - others, 0), math.ceil(limit / math.max(workers, 1)))
  if granted > 0 then
    redis.call('HSET', KEYS[1], worker, int(granted) .. ' ' .. int(now_ms + ttl))
    redis.call('PEXPIRE', KEYS[1], int(ttl * 2))
  else
    redis.call('HDEL', KEYS[1], worker)
  end
  return {int(granted)}

elseif request == 'open' then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. ' ' .. int(now_ms + tonumber(ARGV[4])))
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return {}

elseif request == 'opened' then
  local found = {}
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local level, until_ms = string.match(all[i + 1], '^(%d+) (%d+)$')
    if not level or tonumber(until_ms) + tonumber(ARGV[2]) < now_ms then
      redis.call('HDEL', KEYS[1], all[i]) -- nobody has wanted it for long
    else
      table.insert(found, all[i])
      table.insert(found, level)
      table.insert(found, int(math.max(tonumber(until_ms) - now_ms, 0)))
    end
  end
  return found

elseif request == 'beat' then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now_ms))
  redis.call('ZADD', KEYS[1], int(now_ms + tonumber(ARGV[3])), ARGV[2])
  redis.call('PEXPIRE', KEYS[1], int(tonumber(ARGV[3]) * 2))
  local rank = 0
  local all = redis.call('ZRANGE', KEYS[1], 0, -1)
  for _, worker in ipairs(all) do
    if worker < ARGV[2] then rank = rank + 1 end
  end
  return {int(#all), int(rank)}

elseif request == 'crew' then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now_ms))
  return redis.call('ZRANGE', KEYS[1], 0, -1)
end

return redis.error_reply('ERR unknown request')
