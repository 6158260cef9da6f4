-- The lock is free for the next one, unless it is another's already.
--
-- KEYS  1 the lock
-- ARGV  1 the token of the one who held it
-- Reply 1 if it was still that one's, else 0

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
