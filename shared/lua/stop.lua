-- Flag a running job to stop. ARGV: id, attempt, token, reason (shutdown or timeout). A reason that ends the job
-- is never replaced by one that does not. 1: the job carries a flag now, 0: another attempt owns it.
local id, attempt, token, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not owns(id, attempt, token) then return 0 end
local stop = get(id, 'stop')
if stop == '' or (stop == 'shutdown' and reason == 'timeout') then redis.call('HSET', job_key(id), 'stop', reason) end
return 1
