-- KEYS: state, log. ARGV: an epoch to begin, the generation that the gateway knows or -1, its tag or nothing, 1 if the clock
-- went back, channel, a tag, how much the log holds at most. What a server does not know that a gateway knows was lost, and what
-- it knows under the same number but another tag took its place: then nothing that it holds is believed any more.
local function text(number) return string.format('%.0f', number) end
local function tag(entry) return entry and string.match(entry, '^%d+ (%S+)') or '' end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'seen')
local epoch, generation, seen = state[1], tonumber(state[2] or 0), tonumber(state[3] or 0)
local known, missed = tonumber(ARGV[2]), {'whole'}
local same = known >= 0 and tag(redis.call('LINDEX', KEYS[2], text(known - generation - 1))) or ''
local is_lost = not epoch or known > generation or (same ~= '' and ARGV[3] ~= '' and same ~= ARGV[3])
local length = redis.call('LLEN', KEYS[2])
if is_lost then
  -- What was told since then is not known by its number: all of it is told.
  if length < tonumber(ARGV[7]) then missed = redis.call('LRANGE', KEYS[2], 0, -1) else missed = {} end
  table.insert(missed, 1, length < tonumber(ARGV[7]) and 'lost' or 'whole')
end
if is_lost or ARGV[4] == '1' or now + 1000000 < seen then
  redis.call('PERSIST', KEYS[1])
  if is_lost then redis.call('DEL', KEYS[2]) end
  epoch, generation, seen, length = ARGV[1], math.max(known, generation) + 1, now, length + 1
  local said = text(generation) .. ' ' .. ARGV[6] .. ' begun'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'generation', text(generation), 'sweep', '1')
  redis.call('RPUSH', KEYS[2], said)
  redis.call('LTRIM', KEYS[2], -ARGV[7], -1)
  redis.call('PUBLISH', ARGV[5], said)
end
redis.call('HSET', KEYS[1], 'seen', text(math.max(now, seen)))
if not is_lost and known >= 0 and known < generation and generation - known <= length then
  missed = redis.call('LRANGE', KEYS[2], text(known - generation), -1)
  table.insert(missed, 1, 'whole')
end
local last = tag(redis.call('LINDEX', KEYS[2], -1))
local out = {epoch, text(generation), redis.call('HGET', KEYS[1], 'sweep') or '0', last}
for at = 1, #missed do out[#out + 1] = missed[at] end
return out
