-- Dead letters get another chance: they return with no attempt counted.
--
-- KEYS  1 dead  2 retry  3 stats
-- ARGV  1 how many letters to look at, from the oldest   2 'all', 'reason' or 'id'   3... values
-- Reply how many were revived
--
-- A letter that is not meant goes round to the other end, so that the next call goes on where this
-- one stopped, and a whole round leaves the order as it was.

local kind, wanted = ARGV[2], {}
for i = 3, #ARGV do wanted[ARGV[i]] = true end

-- The types first: an error after a write would leave that write.
redis.call('LLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local revived = 0
for _ = 1, ARGV[1] do
  local letter = redis.call('RPOP', KEYS[1])
  if not letter then break end
  local at = string.find(letter, '\n', 1, true)
  local header = cjson.decode(string.sub(letter, 1, at - 1))
  if kind == 'all' or wanted[kind == 'id' and header.id or header.report.reason] then
    redis.call('ZADD', KEYS[2], now, header.id .. ' 0 R ' .. now .. string.sub(letter, at))
    revived = revived + 1
  else
    redis.call('LPUSH', KEYS[1], letter)
  end
end
if revived > 0 then redis.call('HINCRBY', KEYS[3], 'revived', revived) end
return revived
