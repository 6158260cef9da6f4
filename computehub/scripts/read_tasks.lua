-- The whole task list, read in one step. Changes nothing.
--
-- KEYS  1 PENDING  2 CURRENT  3 COMPLETED  4 VERSION
-- Reply {running or '', pending, completed, version or ''}

return {
  redis.call('GET', KEYS[2]) or '',
  redis.call('LRANGE', KEYS[1], 0, -1),
  redis.call('LRANGE', KEYS[3], 0, -1),
  redis.call('GET', KEYS[4]) or '',
}
