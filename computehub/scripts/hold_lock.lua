-- One hub gets, or keeps, what only one of them may do at a time.
--
-- KEYS  1 the lock
-- ARGV  1 a token of the one who asks   2 ms until the lock is free again without another call
-- Reply 1 if it is that one's now, else 0

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])  -- first: a Redis that is full lets a script go on then
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
