-- End a running job. ARGV: id, attempt, token, status, then field, value, ... 1: done, 0: another attempt owns it.
-- Also 1: the attempt has ended the job so before (its reply was lost, or recovery did it from the manifest).
local id, attempt, token, status = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not owns(id, attempt, token) then
  return (get(id, 'status') == status and get(id, 'ended_by') == attempt .. ' ' .. token) and 1 or 0
end

local now = now_ms()
set_fields(id, 5)
redis.call('HSET', job_key(id), 'ended_by', attempt .. ' ' .. token)
end_attempt(id, status, now)
finish(id, status, now)
return 1
