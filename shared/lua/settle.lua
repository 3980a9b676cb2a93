-- Move a waiting job on. ARGV: id, then its upstream jobs. All succeeded: it is queued; one ended otherwise:
-- it ends as upstream_failed. The status after that.
local id = ARGV[1]
if get(id, 'status') ~= 'waiting' then return get(id, 'status') end

local ready = true
for i = 2, #ARGV do
  local status = get(ARGV[i], 'status')
  if status == 'failed' or status == 'cancelled' then
    leave_queue(id)
    redis.call('HSET', job_key(id), 'error', '{"code":"upstream_failed","message":"job ' .. ARGV[i] ..
      ', on which this one depends, ' .. (status == 'failed' and 'failed' or 'was cancelled') .. '"}')
    finish(id, 'failed', now_ms())
    return 'failed'
  end
  ready = ready and status == 'succeeded'
end
if ready then
  redis.call('SREM', WAITING, id)
  set_status(id, 'queued')
  enqueue(id)
  emit_status(id)
end
return get(id, 'status')
