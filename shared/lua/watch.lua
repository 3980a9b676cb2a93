-- Be one of the few processes that watch over the leases. ARGV: name, most, for how long (ms). 1: it is one now.
local key, now = P .. 'watchers', now_ms()
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
if not redis.call('ZSCORE', key, ARGV[1]) and redis.call('ZCARD', key) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', key, now + ARGV[3], ARGV[1])
return 1
