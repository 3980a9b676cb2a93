-- Note that a job's message did not go out: the next step may choose it again. ARGV: queue, id.
-- Nothing changes for a job that was claimed or has ended meanwhile.
local queue, id = ARGV[1], ARGV[2]
if redis.call('ZREM', published_key(queue), id) == 1 then
  redis.call('ZADD', unpublished_key(queue), get(id, 'score'), id)
end
return 1
