-- A task joins the line; it starts at once if nothing runs.
--
-- KEYS  1 TASKS  2 TIMES  3 PENDING  4 CURRENT  5 COMPLETED  6 VERSION
-- ARGV  1 name   2 the task (JSON)   3 a version token never used before   4 the CHANGED channel
-- Reply 'live' if a task of that name runs or waits; else its place: 0 it runs, n-th in the line
--
-- A completed task of the same name gives way: its queues stay as they are.

local name = ARGV[1]
if redis.call('GET', KEYS[4]) == name then return 'live' end
for _, pending in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  if pending == name then return 'live' end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('LREM', KEYS[5], 0, name)
redis.call('HSET', KEYS[1], name, ARGV[2])
redis.call('HDEL', KEYS[2], 'started:' .. name, 'completed:' .. name, 'worked:' .. name)
redis.call('HSET', KEYS[2], 'submitted:' .. name, now)

if redis.call('EXISTS', KEYS[4]) == 1 then
  return redis.call('RPUSH', KEYS[3], name)
end
redis.call('SET', KEYS[4], name)
redis.call('HSET', KEYS[2], 'started:' .. name, now)
redis.call('SET', KEYS[6], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 0
