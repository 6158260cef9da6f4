-- Results go to an output list on a Redis of its own, before the leases of their items are closed.
--
-- KEYS  1 output list  2 delivered (hash: node -> the name of its last delivery)
-- ARGV  1 node   2 the commit's name   then for each push: 'L' or 'R', count of values, values
-- Reply 1, or 0 if that delivery, or a later one of its series, has been made: then nothing is done

local AT_ONCE = 2000  -- Lua's unpack takes no more than 7,999
local last = redis.call('HGET', KEYS[2], ARGV[1])
if last == ARGV[2] then return 0 end
local series, number = string.match(ARGV[2], '^(%S-)(%d+)$')
local last_series, last_number = string.match(last or '', '^(%S-)(%d+)$')
if series and series == last_series and tonumber(number) < tonumber(last_number) then return 0 end

-- The type first: an error after a write would leave that write.
redis.call('LLEN', KEYS[1])

local i = 3
while i <= #ARGV do
  local push = ARGV[i] == 'L' and 'LPUSH' or 'RPUSH'
  local last = i + 1 + ARGV[i + 1]
  for from = i + 2, last, AT_ONCE do
    redis.call(push, KEYS[1], unpack(ARGV, from, math.min(from + AT_ONCE - 1, last)))
  end
  i = last + 1
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
