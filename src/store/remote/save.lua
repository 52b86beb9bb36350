-- KEYS: state, shelves. ARGV: epoch, generation, milliseconds to live, then for each row: which shelf, the place, the row.
-- An empty row is taken away, '=' must be there already, and of two the later one stays: each begins with its time.
if state[2] ~= ARGV[2] then return {'behind'} end
local out = {'ok'}
for at = 4, #ARGV, 3 do
  local shelf, place, row = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if row == '' then
    redis.call('HDEL', shelf, place)
  else
    local held = redis.call('HGET', shelf, place)
    if row == '=' then
      if not held then out[#out + 1] = ARGV[at] end
    elseif not held or (tonumber(string.sub(held, 1, 16)) or 0) <= tonumber(string.sub(row, 1, 16)) then
      redis.call('HSET', shelf, place, row)
    end
  end
end
for shelf = 2, #KEYS do redis.call('PEXPIRE', KEYS[shelf], ARGV[3]) end
redis.call('HSET', KEYS[1], 'seen', string.format('%.0f', math.max(now, tonumber(state[3]))))
return out
