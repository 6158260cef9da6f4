-- A node has gone for good: it said goodbye, or has been lost for too long.
--
-- KEYS  1 NODES  2 REPORTS  3 SEEN  4 DEADLINES  5 LOST  6 STOPS  7 AGENTS
-- ARGV  1 node   2 the agent that says goodbye, or '' for one that does not say which it is
-- Reply 'gone', 'unknown', or 'shared' if the node is another agent's now: then nothing changes

local node = ARGV[1]
local agent = redis.call('HGET', KEYS[7], node)
if ARGV[2] ~= '' and agent and agent ~= ARGV[2] then return 'shared' end
redis.call('HDEL', KEYS[7], node)
redis.call('HDEL', KEYS[2], node)
redis.call('ZREM', KEYS[3], node)
redis.call('ZREM', KEYS[4], node)
redis.call('HDEL', KEYS[5], node)
redis.call('SREM', KEYS[6], node)
return redis.call('HDEL', KEYS[1], node) == 1 and 'gone' or 'unknown'
