-- What waiting nodes are told, read in one step. Changes nothing.
--
-- KEYS  1 TASKS  2 TIMES  3 CURRENT  4 VERSION  5 STOPS
-- Reply {version or '', task (JSON) or '', ms since when it has had work or '', nodes to stop}

local current = redis.call('GET', KEYS[3])
local task, worked = '', ''
if current then
  task = redis.call('HGET', KEYS[1], current) or ''
  worked = redis.call('HGET', KEYS[2], 'worked:' .. current) or ''
end
return {redis.call('GET', KEYS[4]) or '', task, worked, redis.call('SMEMBERS', KEYS[5])}
