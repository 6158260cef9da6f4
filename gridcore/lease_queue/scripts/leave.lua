-- A producer will push nothing more.
--
-- KEYS  1 producers
-- ARGV  1 producer
-- Reply 1, or 0 if it was not there

return redis.call('ZREM', KEYS[1], ARGV[1])
