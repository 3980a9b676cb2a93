-- Note that a submit is about to use these uploads and jobs. ARGV: their ids.
-- 0, with nothing noted, when one of them is being removed just now.
local now = now_ms()
for _, name in ipairs(ARGV) do
  local since = redis.call('ZSCORE', REMOVING, name)
  if since and now - since < REMOVAL_TAKES_MS then return 0 end
end
for _, name in ipairs(ARGV) do redis.call('ZADD', HELD, now, name) end
redis.call('ZREMRANGEBYSCORE', HELD, '-inf', now - HELD_MS)
return 1
