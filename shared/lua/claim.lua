-- Give a queued job to a worker. ARGV: id, token, worker as JSON, worker's name, pid of its child.
-- The new attempt's number; 0 where the job is not to be had (cancelled, ended, or another's). Called again with
-- the same token (its reply was lost): the same number.
local id, token, worker, worker_name, pid = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = job_key(id)
local fields = redis.call('HMGET', key, 'status', 'token', 'attempt')
if fields[1] == 'running' and fields[2] == token then return tonumber(fields[3]) end
if fields[1] ~= 'queued' then return 0 end

local now = now_ms()
local attempt = redis.call('HINCRBY', key, 'attempt', 1)
leave_queue(id)
redis.call('HSET', key, 'token', token, 'worker', worker, 'worker_name', worker_name, 'stop', '',
  'attempt.' .. attempt, '{"attempt":' .. attempt .. ',"token":"' .. token .. '","worker":' .. worker ..
  ',"started_ms":' .. now .. '}')
redis.call('HSETNX', key, 'started_ms', now)
redis.call('HSET', RUNNING, id, attempt .. ':0')
redis.call('HSET', claims_key(worker_name), id, attempt .. ' ' .. token .. ' ' .. pid)
set_status(id, 'running')
emit_status(id)
return attempt
