-- A node has gone for good: it said goodbye, or has been lost for too long.
--
-- KEYS  1 NODES  2 REPORTS  3 SEEN  4 DEADLINES  5 LOST  6 STOPS
-- ARGV  1 node
-- Reply 1, or 0 for an unknown node

local node = ARGV[1]
redis.call('HDEL', KEYS[2], node)
redis.call('ZREM', KEYS[3], node)
redis.call('ZREM', KEYS[4], node)
redis.call('HDEL', KEYS[5], node)
redis.call('SREM', KEYS[6], node)
return redis.call('HDEL', KEYS[1], node)
