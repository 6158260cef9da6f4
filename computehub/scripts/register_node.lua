-- A node joins, or joins again: it is online, not lost, and no earlier stop holds for it.
--
-- KEYS  1 NODES  2 REPORTS  3 SEEN  4 DEADLINES  5 LOST  6 STOPS  7 AGENTS
-- ARGV  1 node   2 as registered (JSON)   3 ms from now until it is lost without a heartbeat
--       4 its agent, or '' for one that does not say
-- Reply ms now
--
-- Another agent that had this node is superseded: heartbeats.lua tells it so.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The first write takes something away, so that a Redis that is full lets the node in.
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('SREM', KEYS[6], ARGV[1])
redis.call('HDEL', KEYS[7], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZADD', KEYS[4], now + ARGV[3], ARGV[1])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[7], ARGV[1], ARGV[4]) end
return now
