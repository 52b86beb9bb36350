-- KEYS: state, log, shelves. ARGV: epoch, channel, what everybody is told, what those are who were away, how much of that is
-- kept, the new epoch if everything is erased; then for each row: which shelf, the place.
-- The first command takes no memory: what is full must not keep anybody from erasing.
redis.call('PERSIST', KEYS[1])
for at = 7, #ARGV, 2 do redis.call('HDEL', KEYS[tonumber(ARGV[at])], ARGV[at + 1]) end
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'epoch', ARGV[6], 'sweep', '1') end
redis.call('HSET', KEYS[1], 'seen', string.format('%.0f', math.max(now, tonumber(state[3]))))
redis.call('RPUSH', KEYS[2], generation .. ' ' .. ARGV[4])
redis.call('LTRIM', KEYS[2], -ARGV[5], -1)
redis.call('PUBLISH', ARGV[2], generation .. ' ' .. ARGV[3])
return {'ok', tostring(generation)}
