-- A node takes items, which become its leases: what its inbox holds, then what is due again, then
-- the head of the queue.
--
-- KEYS  1 Q  2 inbox:<node>  3 retry  4 lease:<node>  5 nodes  6 stats
-- ARGV  1 node   2 side of Q: 'L' or 'R'   3... a token for each item wanted
-- Reply {items that still wait, then for each item taken: token, attempts, payload}
--
-- The first write takes something away, so a Redis that is full can still be drained.

local node, side, wanted = ARGV[1], ARGV[2], #ARGV - 2
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply, taken = {0}, 0

local function lease(attempts, from, payload)
  taken = taken + 1
  local token = ARGV[2 + taken]
  redis.call('HSET', KEYS[4], token, attempts .. ' ' .. from .. '\n' .. payload)
  reply[#reply + 1] = token
  reply[#reply + 1] = tonumber(attempts)
  reply[#reply + 1] = payload
end

-- The types first: an error after a write would leave that write.
redis.call('LLEN', KEYS[1])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])

for _, payload in ipairs(redis.call('LPOP', KEYS[2], wanted) or {}) do
  lease(0, side, payload)
end
if taken < wanted then
  for _, member in ipairs(
    redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, wanted - taken)) do
    redis.call('ZREM', KEYS[3], member)
    local attempts, from, at = string.match(member, '^%S+ (%d+) ([LR])\n()')
    lease(attempts, from, string.sub(member, at))
  end
end
if taken < wanted then
  local pop = side == 'L' and 'LPOP' or 'RPOP'
  for _, payload in ipairs(redis.call(pop, KEYS[1], wanted - taken) or {}) do
    lease(0, side, payload)
  end
end

if taken > 0 then redis.call('HINCRBY', KEYS[6], 'taken', taken) end
redis.call('ZADD', KEYS[5], now, node)
reply[1] = redis.call('LLEN', KEYS[1])
return reply
