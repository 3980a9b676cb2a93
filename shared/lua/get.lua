-- A job's record as a flat list of fields and values, and its place in its queue (false: it stands in none).
local id = ARGV[1]
local fields = redis.call('HGETALL', job_key(id))
if #fields == 0 then return {fields, false} end
return {fields, redis.call('ZRANK', queued_key(get(id, 'queue')), id)}
