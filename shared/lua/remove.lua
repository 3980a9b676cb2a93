-- Note that an upload or a job is about to be removed. ARGV: its id, a time (ms).
-- 0, with nothing noted, when a submit has asked for it within that time.
local now = now_ms()
local held = redis.call('ZSCORE', HELD, ARGV[1])
if held and now - held <= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', REMOVING, now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', REMOVING, '-inf', now - REMOVAL_TAKES_MS)
return 1
