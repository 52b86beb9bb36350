-- Offers, and asks for the slot. KEYS: slot, turns, offers.
-- ARGV: gateway, run, gap, hold, silence, can, idle, stands, turns, offer, expected. Times are microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local gateway, run, gap, hold = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local silence, can, idle = tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7] == '1'
local GRACE, MOST, MOMENT, STEP = 50000, 100, 150000, 400000
local expected = tonumber(ARGV[11])
local slot = redis.call('HMGET', KEYS[1], 'next', 'limit', 'run', 'held', 'gap')
local at, limit, held = tonumber(slot[1]), tonumber(slot[2]) or 0, slot[4] == '1'
local before = at
if not at or slot[3] ~= run or (expected > 0 and math.abs(now - expected) > STEP) then
  -- Whoever was served before is not known here, or when: one whole interval of silence, and as long as a grant may be late.
  silence = math.max(silence, gap + MOMENT)
  at = at or now
end
if at - now > limit then
  -- The clock was put back.
  at = now + limit
end
if silence > 0 and now + silence > at then
  at = now + silence
end
if at ~= before or slot[3] ~= run then
  redis.call('HSET', KEYS[1], 'next', string.format('%d', at), 'limit', string.format('%d', math.max(at - now, 0)), 'run', run)
  redis.call('PEXPIRE', KEYS[1], 3600000)
end
if ARGV[9] == '' then
  redis.call('HDEL', KEYS[2], gateway)
  redis.call('HDEL', KEYS[3], gateway)
else
  local turns = { now + tonumber(ARGV[8]), can, {} }
  for lane, class, waited in string.gmatch(ARGV[9], '(%S+) (%d) (%d+)') do
    table.insert(turns[3], { lane, tonumber(class), now - tonumber(waited) })
  end
  redis.call('HSET', KEYS[2], gateway, cmsgpack.pack(turns))
  redis.call('HSET', KEYS[3], gateway, ARGV[10])
  redis.call('PEXPIRE', KEYS[2], 60000)
  redis.call('PEXPIRE', KEYS[3], 60000)
end
local all, list = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #list, 2 do
  local turns = cmsgpack.unpack(list[i + 1])
  if turns[1] < now or turns[1] > now + 60000000 then
    redis.call('HDEL', KEYS[2], list[i])
    redis.call('HDEL', KEYS[3], list[i])
  else
    all[list[i]] = turns
  end
end
local function before_than(one, other)
  if not other then return true end
  if one[2] ~= other[2] then return one[2] < other[2] end
  if one[3] ~= other[3] then return one[3] < other[3] end
  return one[1] < other[1]
end
-- The turn among those who would use the slot, and the first by name of those who have it; and the asker's own first turn.
local best, mine, lead, have = nil, nil, nil, false
for name, turns in pairs(all) do
  for _, turn in ipairs(turns[3]) do
    if turns[2] and before_than(turn, best) then best = turn end
    if name == gateway and before_than(turn, mine) then mine = turn end
  end
end
if best then
  for name, turns in pairs(all) do
    for _, turn in ipairs(turns[3]) do
      if turns[2] and turn[1] == best[1] then
        if not lead or name < lead then lead = name end
        if name == gateway then have = true end
      end
    end
  end
end
local function wait(till)
  return { 'wait', string.format('%d', math.max(till - now, 0)), held and '1' or '0', lead == gateway and '1' or '0' }
end
if now < at or not can then return wait(at) end
held = false
local lane = nil
if best and have then
  lane = best[1]
elseif best and now - at < GRACE then
  -- Its gateway has a moment to ask.
  return wait(at + GRACE)
elseif mine then
  lane = mine[1]
elseif best or not idle then
  return wait(at + gap)
end
local token = string.format('%d-%s', now, gateway)
gap = math.max(gap, math.min(tonumber(slot[5]) or 0, gap * 2))
redis.call('HSET', KEYS[1], 'next', string.format('%d', now + hold + gap), 'limit', string.format('%d', hold + gap),
  'run', run, 'held', '1', 'token', token)
redis.call('PEXPIRE', KEYS[1], 3600000)
local reply = { 'granted', token, string.format('%d', now), lane or '' }
if lane then
  local takers = {}
  for name, turns in pairs(all) do
    for _, turn in ipairs(turns[3]) do
      if turn[1] == lane then table.insert(takers, { name, turn[2], turn[3] }) end
    end
  end
  table.sort(takers, before_than)
  for i = 1, math.min(#takers, MOST) do
    local name = takers[i][1]
    local offer = redis.call('HGET', KEYS[3], name)
    if offer then table.insert(reply, offer) end
    redis.call('HDEL', KEYS[2], name)
    redis.call('HDEL', KEYS[3], name)
  end
end
return reply
