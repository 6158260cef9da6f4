-- Some hub serves, with this Redis, at this moment.
--
-- KEYS  1 SERVICE
-- ARGV  1 ms: a longer silence than this was an outage, and the time since then starts anew
-- Reply ms for which there has been no outage

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = tonumber(redis.call('HGET', KEYS[1], 'last'))
local since = tonumber(redis.call('HGET', KEYS[1], 'since'))
-- A clock that was set back is an outage too: no deadline written before it can be trusted.
if not last or not since or now - last > tonumber(ARGV[1]) or now < last then since = now end
redis.call('HDEL', KEYS[1], 'last')  -- first: a Redis that is full lets a script go on then
redis.call('HSET', KEYS[1], 'last', now, 'since', since)
return now - since
