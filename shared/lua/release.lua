-- Take a running job from its attempt. ARGV: id, attempt, token, reason, 1 if it counts as a loss, most losses.
-- It goes back to the queue, or ends where the user cancelled it, its time is up, or it lost too many workers.
-- The new status; '' when another attempt owns it.
local id, attempt, token, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not owns(id, attempt, token) then return '' end

local key, now, status = job_key(id), now_ms(), 'queued'
local stop = get(id, 'stop')
local losses = ARGV[5] == '1' and redis.call('HINCRBY', key, 'losses', 1) or 0
end_attempt(id, reason, now)
if stop == 'user' then
  status = 'cancelled'
elseif stop == 'timeout' then
  status = 'failed'
  redis.call('HSET', key, 'error', '{"code":"timeout","message":"the job reached its time_limit_s"}')
elseif losses > tonumber(ARGV[6]) then
  status = 'failed'
  local code, message = 'worker_lost', 'the job lost ' .. losses ..
    ' workers without a new checkpoint between (the last: ' .. reason .. '); it may be what kills them'
  if reason == 'out_of_memory' then
    code, message = reason, 'the system killed the process of this job for want of memory, the last of ' .. losses ..
      ' losses without a new checkpoint between: choose a smaller size, or a worker with more memory'
  end
  redis.call('HSET', key, 'error', cjson.encode({code = code, message = message}))
end
if status == 'queued' then
  redis.call('HSET', key, 'stop', '')
  count('requeued ' .. reason)
  set_status(id, 'queued')
  enqueue(id)
  local checkpoint = string.match(get(id, 'checkpoints'), '"step": ?(%d+)') -- the newest is the first
  emit_status(id, ',"reason":"' .. reason .. '","goes_on_from_step":' .. (checkpoint or 'null'))
else
  finish(id, status, now)
end
return status
