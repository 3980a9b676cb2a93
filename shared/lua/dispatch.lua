-- Choose the queued jobs to publish next. ARGV: most messages in all, then queue, most messages, ...
-- Lowest score first over all queues. A flat list: id, queue, kind, ...
local room, wanted = tonumber(ARGV[1]), {}
for i = 2, #ARGV, 2 do
  local out = redis.call('ZCARD', published_key(ARGV[i]))
  room = room - out
  wanted[ARGV[i]] = tonumber(ARGV[i + 1]) - out
end

local now, candidates = now_ms(), {}
for i = 2, #ARGV, 2 do
  local queue = ARGV[i]
  local most = math.min(room, wanted[queue])
  if most > 0 then
    local head = redis.call('ZRANGE', unpublished_key(queue), 0, most - 1, 'WITHSCORES')
    for j = 1, #head, 2 do candidates[#candidates + 1] = {tonumber(head[j + 1]), head[j], queue} end
  end
end
table.sort(candidates, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)

local chosen = {}
for i = 1, math.min(room, #candidates) do
  local id, queue = candidates[i][2], candidates[i][3]
  redis.call('ZREM', unpublished_key(queue), id)
  redis.call('ZADD', published_key(queue), now, id)
  redis.call('HINCRBY', job_key(id), 'publishes', 1)
  chosen[#chosen + 1] = id
  chosen[#chosen + 1] = queue
  chosen[#chosen + 1] = get(id, 'kind')
end
return chosen
