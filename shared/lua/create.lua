-- Create a job record unless there is one. ARGV: id, kind, status, created_ms, number of labels, labels
-- (each twice: name, and name=value), then field, value, ... of the record. 1: created, 0: it was there.
local id, kind, status, created_ms, labels = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('EXISTS', job_key(id)) == 1 then return 0 end

set_fields(id, 6 + labels)
redis.call('ZADD', P .. 'jobs', created_ms, id)
redis.call('ZADD', P .. 'jobs:kind:' .. kind, created_ms, id)
for i = 6, 5 + labels do redis.call('ZADD', P .. 'jobs:label:' .. ARGV[i], created_ms, id) end
redis.call('HDEL', job_key(id), 'status')
set_status(id, status)
if status == 'queued' then enqueue(id) end
if status == 'waiting' then redis.call('SADD', WAITING, id) end
emit_status(id)
return 1
