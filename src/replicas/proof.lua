-- Does all that the other scripts do, and nothing that counts: a server that refuses any of it is of no use.
-- KEYS: hash, text. ARGV: channel, or nothing.
redis.call('TIME')
redis.call('HSET', KEYS[1], 'a', '1', 'b', '1')
redis.call('PEXPIRE', KEYS[1], 5000)
redis.call('HMGET', KEYS[1], 'a', 'b')
redis.call('HGET', KEYS[1], 'a')
redis.call('HGETALL', KEYS[1])
redis.call('HDEL', KEYS[1], 'b')
redis.call('SET', KEYS[2], '1', 'PX', 5000)
redis.call('GET', KEYS[2])
redis.call('EXISTS', KEYS[2])
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], '') end
return {}
