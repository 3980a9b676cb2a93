-- End a running job. ARGV: id, attempt, token, status, then field, value, ... 1: done, 0: another attempt owns it.
local id, attempt, token, status = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not owns(id, attempt, token) then return 0 end

local now = now_ms()
if #ARGV > 4 then redis.call('HSET', job_key(id), unpack(ARGV, 5)) end
end_attempt(id, status, now)
finish(id, status, now)
return 1
