-- A request is on the wire, or is over. KEYS: slot, verdict, alive.
-- ARGV: token, gap, channel, message, delay, keep, alive. Times of the slot are microseconds, the others milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local gap, delay = tonumber(ARGV[2]), tonumber(ARGV[5])
local slot = redis.call('HMGET', KEYS[1], 'next', 'token', 'held', 'gap')
local at = tonumber(slot[1])
if at then
  local before = at
  if slot[2] == ARGV[1] and slot[3] == '1' then
    -- The margin that one has learned is kept by all, and given up as slowly.
    local kept = tonumber(slot[4]) or 0
    if kept > gap and kept <= gap * 2 then gap = kept - (kept - gap) / 64 end
    at = now + gap
    redis.call('HSET', KEYS[1], 'held', '0', 'gap', string.format('%d', gap))
  end
  if delay > 0 and now + delay > at then at = now + delay end
  if at ~= before then
    redis.call('HSET', KEYS[1], 'next', string.format('%d', at), 'limit', string.format('%d', math.max(at - now, 0)))
  end
end
if ARGV[6] ~= '0' then redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[6]) end
if ARGV[7] ~= '0' then redis.call('SET', KEYS[3], '1', 'PX', ARGV[7]) end
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return {}
