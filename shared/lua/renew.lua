-- Renew a lease. ARGV: id, attempt, token. The stop reason ('' for none) and how often the job has reported;
-- false when another attempt owns the job.
local id, attempt, token = ARGV[1], ARGV[2], ARGV[3]
if not owns(id, attempt, token) then return false end

local renewals = redis.call('HINCRBY', job_key(id), 'renewals', 1)
redis.call('HSET', RUNNING, id, attempt .. ':' .. renewals)
local fields = redis.call('HMGET', job_key(id), 'stop', 'beat')
return {fields[1] or '', tonumber(fields[2] or '0')}
