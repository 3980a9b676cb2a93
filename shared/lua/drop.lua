-- Forget a claim that another attempt has taken over. ARGV: worker, id, then the claim as the worker's list has it.
-- The worker may itself have claimed the job anew since.
local key, id = claims_key(ARGV[1]), ARGV[2]
if redis.call('HGET', key, id) == ARGV[3] then redis.call('HDEL', key, id) end
return 1
