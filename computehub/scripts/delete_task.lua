-- A task that does not run is forgotten; its queues stay as they are.
--
-- KEYS  1 TASKS  2 TIMES  3 PENDING  4 CURRENT  5 COMPLETED
-- ARGV  1 name
-- Reply 'deleted', 'running' or 'unknown'

local name = ARGV[1]
if redis.call('GET', KEYS[4]) == name then return 'running' end
if redis.call('HDEL', KEYS[1], name) == 0 then return 'unknown' end
redis.call('LREM', KEYS[3], 0, name)
redis.call('LREM', KEYS[5], 0, name)
redis.call('HDEL', KEYS[2],
  'submitted:' .. name, 'started:' .. name, 'completed:' .. name, 'worked:' .. name)
return 'deleted'
