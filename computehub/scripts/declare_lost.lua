-- Nodes whose deadline has passed are lost: each is declared so once, by one hub.
--
-- KEYS  1 DEADLINES  2 LOST
-- ARGV  1 how many at the most
-- Reply the nodes that this call declared lost

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nodes = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, ARGV[1])
for _, node in ipairs(nodes) do
  redis.call('ZREM', KEYS[1], node)
  redis.call('HSET', KEYS[2], node, now)
end
return nodes
