-- A node takes items, which become its leases: what is due again, then what its inbox holds, then
-- the head of the queue.
--
-- KEYS  1 Q  2 inbox:<node>  3 retry  4 lease:<node>  5 nodes  6 stats
-- ARGV  1 node   2 side of Q: 'L' or 'R'   3 items at the most
--       4 what the new tokens begin with, and 5 the number at which they go on
--       6 bytes that it takes at the most, though more is wanted; one item it takes in any case
-- Reply {items that still wait in Q, ms until the next item in retry is due or -1, nodes,
--        {attempts of the first items; those of the others are 0}, {payload of each item},
--        1 if it stopped at the bytes, so that there may be more, else 0}
--
-- The first write takes something away, so a Redis that is full can still be drained.

local MOST = 64  -- popped at a time; the bytes are counted in between
local node, side, wanted = ARGV[1], ARGV[2], tonumber(ARGV[3])
local prefix, number, budget = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local attempts, payloads, leases = {}, {}, {}

local count, bytes, largest = 0, 0, 0
local function lease(payload, header)
  count = count + 1
  bytes = bytes + #payload
  if #payload > largest then largest = #payload end
  payloads[count] = payload
  leases[2 * count - 1] = prefix .. string.format('%d', number)
  leases[2 * count] = header .. payload
  number = number + 1
end
-- Made once: for thousands of items that takes longer than all else here.
local fresh = '0 ' .. side .. ' ' .. now .. '\n'

-- The types first: an error after a write would leave that write.
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])

-- How many to pop now: as many as fit if all are as large as the largest so far. None is known
-- before the first, so that comes alone.
local function some()
  local fit = count == 0 and 1 or math.floor((budget - bytes) / math.max(largest, 1))
  return math.max(0, math.min(wanted - count, MOST, fit))
end

while some() > 0 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, some())
  if #due == 0 then break end
  for _, member in ipairs(due) do
    redis.call('ZREM', KEYS[3], member)
    local failed, from, at = string.match(member, '^%S+ (%d+) ([LR]) %d+\n()')
    attempts[#attempts + 1] = tonumber(failed)
    lease(string.sub(member, at), failed .. ' ' .. from .. ' ' .. now .. '\n')
  end
end
local function take_from(list, pop)
  while some() > 0 do
    local payloads = redis.call(pop, list, some())
    if not payloads then break end
    for _, payload in ipairs(payloads) do lease(payload, fresh) end
  end
end
take_from(KEYS[2], 'LPOP')
take_from(KEYS[1], side == 'L' and 'LPOP' or 'RPOP')

redis.call('ZREM', KEYS[5], node)
redis.call('ZADD', KEYS[5], now, node)
for i = 1, #leases, 2000 do
  redis.call('HSET', KEYS[4], unpack(leases, i, math.min(i + 1999, #leases)))
end
if #payloads > 0 then redis.call('HINCRBY', KEYS[6], 'taken', #payloads) end

local next_due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
return {
  redis.call('LLEN', KEYS[1]),
  next_due and math.max(0, next_due - now) or -1,
  redis.call('ZCARD', KEYS[5]),
  attempts,
  payloads,
  count < wanted and some() == 0 and 1 or 0,
}
