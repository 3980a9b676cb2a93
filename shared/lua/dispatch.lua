-- Choose the queued jobs to publish next. ARGV: most messages in all, then queue, most messages, ...
-- Lowest score first over all queues. A flat list: id, queue, kind, ...
local room = tonumber(ARGV[1])
local now, candidates = now_ms(), {}
for i = 2, #ARGV, 2 do
  local queue, window = ARGV[i], tonumber(ARGV[i + 1])
  local out = redis.call('ZCARD', published_key(queue))
  room = room - out
  local wanted = window - out
  if wanted > 0 then
    -- The published ones still stand in the queue, mostly at its head: so many more are looked at.
    local head = redis.call('ZRANGE', queued_key(queue), 0, window + out, 'WITHSCORES')
    for j = 1, #head, 2 do
      if wanted > 0 and not redis.call('ZSCORE', published_key(queue), head[j]) then
        wanted = wanted - 1
        candidates[#candidates + 1] = {tonumber(head[j + 1]), head[j], queue}
      end
    end
  end
end
table.sort(candidates, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)

local chosen = {}
for i = 1, math.min(room, #candidates) do
  local id, queue = candidates[i][2], candidates[i][3]
  redis.call('ZADD', published_key(queue), now, id)
  redis.call('HINCRBY', job_key(id), 'publishes', 1)
  chosen[#chosen + 1] = id
  chosen[#chosen + 1] = queue
  chosen[#chosen + 1] = get(id, 'kind')
end
return chosen
