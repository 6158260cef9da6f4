-- Dead letters are thrown away for good.
--
-- KEYS  1 dead  2 stats
-- ARGV  1 how many letters to look at, from the oldest   2 'all', 'reason' or 'id'   3... values
-- Reply how many were thrown away
--
-- A letter that is not meant goes round to the other end, as in revive.lua.

local kind, wanted = ARGV[2], {}
for i = 3, #ARGV do wanted[ARGV[i]] = true end

local discarded = 0
for _ = 1, ARGV[1] do
  local letter = redis.call('RPOP', KEYS[1])
  if not letter then break end
  local header = cjson.decode(string.sub(letter, 1, string.find(letter, '\n', 1, true) - 1))
  if kind == 'all' or wanted[kind == 'id' and header.id or header.report.reason] then
    discarded = discarded + 1
  else
    redis.call('LPUSH', KEYS[1], letter)
  end
end
if discarded > 0 then redis.call('HINCRBY', KEYS[2], 'discarded', discarded) end
return discarded
