-- Put before every script: key names, Redis' own clock, events, and the moves that several scripts make.
local P = 'dreamq:'
local function job_key(id) return P .. 'job:' .. id end
local function queued_key(queue) return P .. 'queued:' .. queue end
local function unpublished_key(queue) return P .. 'unpublished:' .. queue end
local function published_key(queue) return P .. 'published:' .. queue end
local function claims_key(worker) return P .. 'claims:' .. worker end
local function events_key(id) return P .. 'events:' .. id end
local RUNNING, WAITING, UNWRITTEN = P .. 'running', P .. 'waiting', P .. 'unwritten'
local HELD, REMOVING = P .. 'held', P .. 'removing'
local HELD_MS = 86400000
local REMOVAL_TAKES_MS = 600000 -- at most; after that whoever was at it has died
local EVENTS_KEPT = 2000
local EVENTS_KEPT_AFTER_END_S = 86400

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function get(id, field)
  return redis.call('HGET', job_key(id), field) or ''
end

local function emit(id, type, data)
  redis.call('XADD', events_key(id), 'MAXLEN', '~', EVENTS_KEPT, '*', 'type', type, 'data', data)
end

-- Set a record's fields from ARGV[first] on: in parts, since Lua's stack holds no more than 8000 values.
local function set_fields(id, first)
  for i = first, #ARGV, 1000 do
    redis.call('HSET', job_key(id), unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
end

-- `more`: what else is to be told, as text that begins with a comma.
-- Data is built as text: Lua's JSON encoder would turn an empty list into an object.
local function emit_status(id, more)
  local fields = redis.call('HMGET', job_key(id), 'status', 'attempt', 'stop', 'error')
  emit(id, 'status', '{"status":"' .. fields[1] .. '","attempt":' .. fields[2] ..
    ',"cancel_requested":' .. tostring(fields[3] == 'user') ..
    ',"error":' .. ((fields[4] and fields[4] ~= '') and fields[4] or 'null') .. (more or '') .. '}')
end

-- What /metrics tells, added up since Redis was last empty.
local function count(what)
  redis.call('HINCRBY', P .. 'counters', what, 1)
end

local function set_status(id, status)
  local key = job_key(id)
  local fields = redis.call('HMGET', key, 'status', 'created_ms')
  if fields[1] then redis.call('ZREM', P .. 'jobs:status:' .. fields[1], id) end
  redis.call('ZADD', P .. 'jobs:status:' .. status, fields[2], id)
  redis.call('HSET', key, 'status', status)
end

local function enqueue(id)
  local fields = redis.call('HMGET', job_key(id), 'queue', 'score')
  redis.call('ZADD', queued_key(fields[1]), fields[2], id)
  redis.call('ZADD', unpublished_key(fields[1]), fields[2], id)
  redis.call('SADD', P .. 'queues', fields[1])
  redis.call('HDEL', job_key(id), 'publishes')
end

local function leave_queue(id)
  local queue = get(id, 'queue')
  redis.call('ZREM', queued_key(queue), id)
  redis.call('ZREM', unpublished_key(queue), id)
  redis.call('ZREM', published_key(queue), id)
  redis.call('SREM', WAITING, id)
end

-- The fence: only the attempt that owns the running job passes.
local function owns(id, attempt, token)
  local fields = redis.call('HMGET', job_key(id), 'status', 'attempt', 'token')
  return fields[1] == 'running' and fields[2] == attempt and fields[3] == token
end

local function end_attempt(id, reason, now)
  local fields = redis.call('HMGET', job_key(id), 'attempt', 'worker_name')
  redis.call('HSET', job_key(id), 'attempt_end.' .. fields[1],
    '{"ended_ms":' .. now .. ',"reason":"' .. reason .. '"}', 'worker', '', 'token', '')
  redis.call('HDEL', RUNNING, id)
  if fields[2] then redis.call('HDEL', claims_key(fields[2]), id) end
end

local function finish(id, status, now)
  set_status(id, status)
  local code = string.match(get(id, 'error'), '"code":"([%w_]+)"') or ''
  count('ended ' .. get(id, 'kind') .. ' ' .. status .. ' ' .. code)
  redis.call('HSET', job_key(id), 'finished_ms', now)
  redis.call('SADD', UNWRITTEN, id)
  emit_status(id)
  redis.call('EXPIRE', events_key(id), EVENTS_KEPT_AFTER_END_S)
end
