-- KEYS: state, log. ARGV: an epoch to begin, the generation that the gateway knows or -1, its tag, 1 if the clock went back,
-- channel, a tag, how much the log holds at most. What a server does not know that a gateway knows was lost, and what it knows
-- under the same number but another tag took its place: then nothing that it holds is believed any more. A new epoch says of which
-- erasure its author knew last: who knows the same has missed nothing by it.
local function text(number) return string.format('%.0f', number) end
local function tag(entry) return entry and string.match(entry, '^%d+ (%S+)') or '' end
-- The first command takes no memory: what is full is read, and erased from, all the same.
redis.call('PERSIST', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'seen')
local epoch, generation, seen = state[1], tonumber(state[2] or 0), tonumber(state[3] or 0)
local known, follows = tonumber(ARGV[2]), ARGV[2] .. ' ' .. ARGV[3]
local length, most = redis.call('LLEN', KEYS[2]), tonumber(ARGV[7])
local first = redis.call('LINDEX', KEYS[2], 0)
local is_first = first and string.match(first, ' begun (.*)$') == follows
local same = known >= 0 and not is_first and tag(redis.call('LINDEX', KEYS[2], text(known - generation - 1))) or ''
local is_lost = not epoch or (known > generation and not is_first) or (same ~= '' and same ~= ARGV[3])
local kind, missed = 'unknown', {}
if (is_lost or is_first) and length < most then
  -- Its numbers may be those of others: all of it is told.
  kind, missed = 'all', redis.call('LRANGE', KEYS[2], 0, -1)
end
if is_lost or ARGV[4] == '1' or now + 1000000 < seen then
  if is_lost then
    redis.call('DEL', KEYS[2])
  else
    follows = text(generation) .. ' ' .. tag(redis.call('LINDEX', KEYS[2], -1))
  end
  epoch, generation, seen, length = ARGV[1], math.max(known, generation) + 1, now, length + 1
  local said = text(generation) .. ' ' .. ARGV[6] .. ' begun ' .. follows
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'generation', text(generation), 'sweep', '1')
  redis.call('RPUSH', KEYS[2], said)
  redis.call('LTRIM', KEYS[2], -most, -1)
  redis.call('PUBLISH', ARGV[5], said)
end
redis.call('HSET', KEYS[1], 'seen', text(math.max(now, seen)))
if not is_lost and not is_first and known >= 0 and generation - known <= length then
  kind = 'next'
  if known < generation then missed = redis.call('LRANGE', KEYS[2], text(known - generation), -1) end
end
local last = tag(redis.call('LINDEX', KEYS[2], -1))
local out = {epoch, text(generation), redis.call('HGET', KEYS[1], 'sweep') or '0', last, kind}
for at = 1, #missed do out[#out + 1] = missed[at] end
return out
