-- Items are done: their leases are closed and their results pushed, a transaction at a time.
--
-- KEYS  1 lease:<node>  2 output list  3 stats  4 retry  5 Q
-- ARGV  1 node   2 the commit's name, never used for another: a series, and a number that counts up
--       then for each transaction: count of tokens, tokens, count of pushes, then for each push:
--       where and how ('L' or 'R' of the output list, 'l' or 'r' of Q), count of values, values
-- Reply a string with a character for each transaction: '1' done; '0' fenced, since one of its
--       leases is no longer this node's: its results are dropped, what it still holds returns
--
-- The same commit sent again (its reply was lost) gets the same reply, and does nothing. So does one
-- that comes after a later one of its series, on a connection that was given up. Leases are
-- closed before results are pushed: Redis checks its memory before the first write only, and a
-- Redis that is full can still be drained.

local AT_ONCE = 2000  -- Lua's unpack takes no more than 7,999
local node, name = ARGV[1], ARGV[2]
local last = redis.call('HGET', KEYS[3], 'commit:' .. node)
if last and string.sub(last, 1, #name + 1) == name .. ' ' then
  return string.sub(last, #name + 2)
end
local function series_and_number(text) return string.match(text, '^(%S-)(%d+)%f[%s%z]') end
local series, number = series_and_number(name)
local last_series, last_number = series_and_number(last or '')
if series and series == last_series and tonumber(number) < tonumber(last_number) then return '' end

-- The types first: an error after a write would leave that write.
redis.call('HLEN', KEYS[1])
redis.call('LLEN', KEYS[2])
redis.call('ZCARD', KEYS[4])
redis.call('LLEN', KEYS[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local closed, returned, pushes, verdicts = {}, {}, {}, {}
local committed, fenced = 0, 0
local i = 3

while i <= #ARGV do
  local tokens = tonumber(ARGV[i])
  local first, last_token = i + 1, i + tokens
  local is_ours = true
  for t = first, last_token do
    is_ours = is_ours and redis.call('HEXISTS', KEYS[1], ARGV[t]) == 1
  end
  for t = first, last_token do
    local entry = not is_ours and redis.call('HGET', KEYS[1], ARGV[t])
    if entry then
      returned[#returned + 1] = now
      returned[#returned + 1] = ARGV[t] .. ' ' .. entry
    end
    closed[#closed + 1] = ARGV[t]
  end
  if is_ours then committed = committed + tokens else fenced = fenced + 1 end
  verdicts[#verdicts + 1] = is_ours and '1' or '0'

  i = last_token + 1
  local count = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, count do
    local values = tonumber(ARGV[i + 1])
    if is_ours then pushes[#pushes + 1] = i end
    i = i + 2 + values
  end
end

for from = 1, #closed, AT_ONCE do
  redis.call('HDEL', KEYS[1], unpack(closed, from, math.min(from + AT_ONCE - 1, #closed)))
end
for from = 1, #returned, AT_ONCE do
  redis.call('ZADD', KEYS[4], unpack(returned, from, math.min(from + AT_ONCE - 1, #returned)))
end
local COMMANDS = {L = 'LPUSH', R = 'RPUSH', l = 'LPUSH', r = 'RPUSH'}
for _, at in ipairs(pushes) do
  local how, first, last_value = ARGV[at], at + 2, at + 1 + ARGV[at + 1]
  local list = (how == 'L' or how == 'R') and KEYS[2] or KEYS[5]
  for from = first, last_value, AT_ONCE do
    redis.call(COMMANDS[how], list, unpack(ARGV, from, math.min(from + AT_ONCE - 1, last_value)))
  end
end

local verdict = table.concat(verdicts)
redis.call('HSET', KEYS[3], 'commit:' .. node, name .. ' ' .. verdict)
redis.call('HINCRBY', KEYS[3], 'committed', committed)
if fenced > 0 then redis.call('HINCRBY', KEYS[3], 'fenced', fenced) end
if #returned > 0 then redis.call('HINCRBY', KEYS[3], 'returned', #returned / 2) end
return verdict
