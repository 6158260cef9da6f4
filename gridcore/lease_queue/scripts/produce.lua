-- A producer will push more: until it has been silent for a while, or leaves, the queue is not done.
--
-- KEYS  1 producers  2 stats
-- ARGV  1 producer   2 ms: who has been silent for so long is forgotten
-- Reply 1

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Taken away first: a Redis that is full refuses a script whose first write adds something.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], 'produced', now)
return 1
