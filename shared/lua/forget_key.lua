-- Unbind an idempotency key from a job that is gone. ARGV: hash of the key, id.
-- A client may have used the key for another job since, or have made this one anew.
local key, id = P .. 'idempotency:' .. ARGV[1], ARGV[2]
local bound = redis.call('GET', key)
if not bound or string.sub(bound, 1, #id + 1) ~= id .. ' ' then return 0 end
if redis.call('EXISTS', job_key(id)) == 1 then return 0 end
return redis.call('DEL', key)
