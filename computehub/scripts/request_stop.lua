-- A node is asked to stop; if it waits in a long poll, the hubs wake it.
--
-- KEYS  1 NODES  2 STOPS
-- ARGV  1 node   2 the CHANGED channel
-- Reply 1, or 0 for an unknown node

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('SREM', KEYS[2], ARGV[1])  -- first: a Redis that is full lets a script go on then
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
