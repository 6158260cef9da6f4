-- The fleet leaves the running task, which is then completed, and goes on to the next in line.
--
-- KEYS  1 TIMES  2 PENDING  3 CURRENT  4 COMPLETED  5 VERSION
-- ARGV  1 a version token never used before   2 the CHANGED channel
--       3 the version that must still be in force, or '' for any
--       4 '1': only if there is a next task
-- Reply {'moved', left, started}, either of them '' for none; else {'stale'}, {'none_running'}
--       or {'none_pending'} and nothing has changed

local current = redis.call('GET', KEYS[3])
if ARGV[3] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[3] then return {'stale'} end
if ARGV[4] == '1' then
  if redis.call('EXISTS', KEYS[2]) == 0 then return {'none_pending'} end
elseif not current then
  return {'none_running'}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The first write takes something away, so that a Redis that is full lets the fleet move on.
local following = redis.call('LPOP', KEYS[2])
redis.call('DEL', KEYS[3])
if current then
  redis.call('RPUSH', KEYS[4], current)
  redis.call('HSET', KEYS[1], 'completed:' .. current, now)
end
if following then
  redis.call('SET', KEYS[3], following)
  redis.call('HSET', KEYS[1], 'started:' .. following, now)
end
redis.call('SET', KEYS[5], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
return {'moved', current or '', following or ''}
