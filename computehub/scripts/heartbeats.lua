-- Signs of life of several nodes at once, each with its report.
--
-- KEYS  1 NODES  2 REPORTS  3 SEEN  4 DEADLINES  5 LOST  6 STOPS  7 FAILURES  8 AGENTS
-- ARGV  1 how many failures are kept
--       then for each node: node, its agent or '', report (JSON), ms until it is lost, failures (a
--       JSON list)
-- Reply {ms now, online nodes, verdict for each node}
--       verdict: 0 unknown, else 1 + 2 if it is asked to stop + 4 if it had been lost; 9 if the
--       node is another agent's now
--
-- An unknown node changes nothing: it has to register, with what a report does not say. Nor does an
-- agent whose node is another's: it is no sign of life of that one.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local verdicts = {}

for i = 2, #ARGV, 5 do
  local node, agent, verdict = ARGV[i], ARGV[i + 1], 0
  local registered = agent ~= '' and redis.call('HGET', KEYS[8], node)
  if registered and registered ~= agent then
    verdict = 9
  elseif redis.call('HEXISTS', KEYS[1], node) == 1 then
    verdict = 1 + 2 * redis.call('SISMEMBER', KEYS[6], node) + 4 * redis.call('HDEL', KEYS[5], node)
    redis.call('HSET', KEYS[2], node, ARGV[i + 2])
    redis.call('ZADD', KEYS[3], now, node)
    redis.call('ZADD', KEYS[4], now + ARGV[i + 3], node)
    if ARGV[i + 4] ~= '' then
      for _, failure in ipairs(cjson.decode(ARGV[i + 4])) do
        redis.call('LPUSH', KEYS[7], failure)
      end
      redis.call('LTRIM', KEYS[7], 0, ARGV[1] - 1)
    end
  end
  verdicts[#verdicts + 1] = verdict
end
return {now, redis.call('ZCARD', KEYS[4]), verdicts}
