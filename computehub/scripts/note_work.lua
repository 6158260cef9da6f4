-- The running task was seen to have work: from now on an empty queue means that it is drained.
--
-- KEYS  1 TIMES  2 CURRENT  3 VERSION
-- ARGV  1 the version at which the work was seen
-- Reply 1 if noted, 0 if the fleet has moved on

local current = redis.call('GET', KEYS[2])
if not current or redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
redis.call('HSETNX', KEYS[1], 'worked:' .. current, time[1] * 1000 + math.floor(time[2] / 1000))
return 1
