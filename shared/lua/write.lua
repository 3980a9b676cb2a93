-- A fenced write of the attempt that owns the job. ARGV: id, attempt, token, type of event ('' for none),
-- its data, then field, value, ... The stop reason ('' for none); false when another attempt owns the job.
local id, attempt, token, type = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not owns(id, attempt, token) then return false end

local key = job_key(id)
set_fields(id, 6)
for i = 6, #ARGV, 2 do
  -- A new checkpoint: the job gets on, whatever it lost before.
  if ARGV[i] == 'checkpoints' then redis.call('HSET', key, 'losses', 0) end
end
redis.call('HINCRBY', key, 'beat', 1)
if type ~= '' then emit(id, type, ARGV[5]) end
return redis.call('HGET', key, 'stop') or ''
