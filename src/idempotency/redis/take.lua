-- Takes a window of once_per for an event. KEYS[1]: the window, with its owner as the value. KEYS[2]: that this event has
-- taken it once. ARGV: the event, how long the window is, how long to remember that it was taken, in milliseconds.
-- Answers 1 if the event may run.
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] or redis.call('GET', KEYS[2]) then return 1 end
if owner then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
return 1
