-- In front of every other script. KEYS[1]: the state. ARGV[1]: the epoch that the gateway knows.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'seen')
if state[1] ~= ARGV[1] or now + 1000000 < tonumber(state[3]) then return {'lost'} end
