-- KEYS: state, shelves. ARGV: epoch, the beginning of the places that are wanted.
local wanted = ARGV[2]
local out = {'ok'}
for shelf = 2, #KEYS do
  local rows, at = redis.call('HGETALL', KEYS[shelf]), #out + 1
  out[at] = '0'
  for row = 1, #rows, 2 do
    if string.sub(rows[row], 2, 1 + #wanted) == wanted then
      out[#out + 1] = rows[row]
      out[#out + 1] = rows[row + 1]
    end
  end
  out[at] = tostring((#out - at) / 2)
end
return out
