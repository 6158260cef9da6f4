-- Items return: they were not run, or their run failed; after too many failures they are dead.
--
-- KEYS  1 Q  2 lease:<node>  3 retry  4 dead  5 stats
-- ARGV  1 node   2 failures after which an item is dead
--       then for each item: token, '1' if its run failed, ms until it is due again, the report of
--       the failure (a JSON object)
-- Reply a string with a character for each item: 'r' returned, 'd' dead, '-' no longer this node's
--
-- An item that never failed goes back to the end of Q from which it was taken, so that its place in
-- the order stays; one that has failed waits in retry, where its attempts are known.

local node, most = ARGV[1], tonumber(ARGV[2])

-- The types first: an error after a write would leave that write.
redis.call('LLEN', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[4])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local outcomes, count = {}, {returned = 0, aborted = 0, dead = 0}

for i = 3, #ARGV, 4 do
  local token, has_failed = ARGV[i], ARGV[i + 1] == '1'
  local entry = redis.call('HGET', KEYS[2], token)
  if not entry then
    outcomes[#outcomes + 1] = '-'
  else
    local attempts, side, since, at = string.match(entry, '^(%d+) ([LR]) (%d+)\n()')
    local payload = string.sub(entry, at)
    redis.call('HDEL', KEYS[2], token)
    attempts = tonumber(attempts)
    if has_failed then
      attempts = attempts + 1
      count.aborted = count.aborted + 1
    end
    if has_failed and attempts >= most then
      redis.call('LPUSH', KEYS[4], '{"id":"' .. token .. '","attempts":' .. attempts .. ',"at_ms":' .. now
        .. ',"node":' .. cjson.encode(node) .. ',"report":' .. ARGV[i + 3] .. '}\n' .. payload)
      count.dead = count.dead + 1
      outcomes[#outcomes + 1] = 'd'
    else
      if attempts == 0 then
        redis.call(side == 'L' and 'LPUSH' or 'RPUSH', KEYS[1], payload)
      else
        redis.call('ZADD', KEYS[3], now + ARGV[i + 2],
          token .. ' ' .. attempts .. ' ' .. side .. ' ' .. since .. '\n' .. payload)
      end
      if not has_failed then count.returned = count.returned + 1 end
      outcomes[#outcomes + 1] = 'r'
    end
  end
end

for what, how_many in pairs(count) do
  if how_many > 0 then redis.call('HINCRBY', KEYS[5], what, how_many) end
end
return table.concat(outcomes)
