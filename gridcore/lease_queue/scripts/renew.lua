-- A node is alive, and with it all its leases.
--
-- KEYS  1 nodes
-- ARGV  1 node
-- Reply 1, or 0 if it has been reaped: then it holds nothing any more

local renewed = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not renewed or renewed == '0' then return 0 end
local time = redis.call('TIME')
-- Taken away first: a Redis that is full refuses a script whose first write adds something, and a
-- node must not be reaped for that.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
return 1
