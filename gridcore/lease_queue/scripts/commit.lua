-- Items are done: their leases are closed and their results pushed, a transaction at a time.
--
-- KEYS  1 lease:<node>  2 output list  3 stats  4 retry
-- ARGV  1 node   2 the commit's name, never used for another
--       then for each transaction: count of tokens, tokens, count of results, (side, result)s
-- Reply a string with a character for each transaction: '1' done; '0' fenced, since one of its
--       leases is no longer this node's: its results are dropped, what it still holds returns
--
-- The same commit sent again (its reply was lost) gets the same reply, and does nothing. Leases are
-- closed before results are pushed: Redis checks its memory before the first write only, and a
-- Redis that is full can still be drained.

local node, name = ARGV[1], ARGV[2]
local last = redis.call('HGET', KEYS[3], 'commit:' .. node)
if last and string.sub(last, 1, #name + 1) == name .. ' ' then
  return string.sub(last, #name + 2)
end

-- The types first: an error after a write would leave that write.
redis.call('HLEN', KEYS[1])
redis.call('LLEN', KEYS[2])
redis.call('ZCARD', KEYS[4])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local committed, fenced, returned, verdicts = 0, 0, 0, {}
local i = 3

while i <= #ARGV do
  local tokens = tonumber(ARGV[i])
  local first_token, results = i + 1, tonumber(ARGV[i + 1 + tokens])
  local first_result = i + 2 + tokens
  local is_ours = true
  for t = first_token, first_token + tokens - 1 do
    is_ours = is_ours and redis.call('HEXISTS', KEYS[1], ARGV[t]) == 1
  end
  for t = first_token, first_token + tokens - 1 do
    local entry = not is_ours and redis.call('HGET', KEYS[1], ARGV[t])
    redis.call('HDEL', KEYS[1], ARGV[t])
    if entry then
      redis.call('ZADD', KEYS[4], now, ARGV[t] .. ' ' .. entry)
      returned = returned + 1
    end
  end
  if is_ours then
    for r = first_result, first_result + 2 * results - 1, 2 do
      redis.call(ARGV[r] == 'L' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[r + 1])
    end
    committed = committed + tokens
  else
    fenced = fenced + 1
  end
  verdicts[#verdicts + 1] = is_ours and '1' or '0'
  i = first_result + 2 * results
end

local verdict = table.concat(verdicts)
redis.call('HSET', KEYS[3], 'commit:' .. node, name .. ' ' .. verdict)
redis.call('HINCRBY', KEYS[3], 'committed', committed)
if fenced > 0 then redis.call('HINCRBY', KEYS[3], 'fenced', fenced) end
if returned > 0 then redis.call('HINCRBY', KEYS[3], 'returned', returned) end
return verdict
