-- Ask for a job's cancel. ARGV: id. A job that has not started ends at once; a running one sees the flag at
-- its next report. The status after that; '' for an unknown id.
local id = ARGV[1]
local status = get(id, 'status')
if status == 'queued' or status == 'waiting' then
  leave_queue(id)
  redis.call('HSET', job_key(id), 'stop', 'user')
  finish(id, 'cancelled', now_ms())
  return 'cancelled'
end
if status == 'running' and get(id, 'stop') ~= 'user' then
  redis.call('HSET', job_key(id), 'stop', 'user')
  emit_status(id)
end
return status
