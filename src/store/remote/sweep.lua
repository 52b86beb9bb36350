-- KEYS: state. ARGV: epoch, where to go on, a pattern, what those names begin with that stay.
local found = redis.call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', 500)
for at = 1, #found[2] do
  if string.sub(found[2][at], 1, #ARGV[4]) ~= ARGV[4] then redis.call('UNLINK', found[2][at]) end
end
if found[1] == '0' then redis.call('HDEL', KEYS[1], 'sweep') end
return {'ok', found[1]}
