-- A node has been silent for too long, or has said that it holds nothing: its leases return.
--
-- KEYS  1 Q  2 inbox:<node>  3 lease:<node>  4 retry  5 nodes  6 stats
-- ARGV  1 node   2 ms of silence after which it is reaped   3 items at the most
--       4 '1' if the node itself asks for it, and has no commit under way
-- Reply how many items are left to be reaped, or -1 if the node is not silent
--
-- That the node is gone says nothing about its items: no attempt is counted. While some are left
-- the node stays in nodes with a renewal of 0, so that it cannot renew itself between two calls.

local node, silent, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local renewed = redis.call('ZSCORE', KEYS[5], node)
-- A node that asks for it itself need not be silent, not even by a clock that went back.
if ARGV[4] ~= '1' and renewed and now - renewed < silent then return -1 end

-- The types first: an error after a write would leave that write.
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[2])
redis.call('ZCARD', KEYS[4])

local moved = 0
while moved < most do
  local payload = redis.call('RPOP', KEYS[2])
  if not payload then break end
  redis.call('RPUSH', KEYS[1], payload)
  moved = moved + 1
end
if moved < most then
  -- Not HSCAN: from its first cursor it finds nothing more once the first buckets are empty.
  local found = redis.call('HRANDFIELD', KEYS[3], most - moved, 'WITHVALUES')
  for i = 1, #found, 2 do
    local token, entry = found[i], found[i + 1]
    redis.call('HDEL', KEYS[3], token)
    local attempts, side, at = string.match(entry, '^(%d+) ([LR]) %d+\n()')
    if attempts == '0' then
      redis.call(side == 'L' and 'LPUSH' or 'RPUSH', KEYS[1], string.sub(entry, at))
    else
      redis.call('ZADD', KEYS[4], now, token .. ' ' .. entry)
    end
    moved = moved + 1
  end
end

local left = redis.call('LLEN', KEYS[2]) + redis.call('HLEN', KEYS[3])
if left == 0 then
  redis.call('ZREM', KEYS[5], node)
  -- A lost node may still send its last commit again, and must get the same answer.
  if ARGV[4] == '1' then redis.call('HDEL', KEYS[6], 'commit:' .. node) end
else
  redis.call('ZADD', KEYS[5], 0, node)
end
if moved > 0 then redis.call('HINCRBY', KEYS[6], 'reaped', moved) end
return left
