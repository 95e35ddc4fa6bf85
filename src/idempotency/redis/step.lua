-- One step of the claim protocol on one key: the twin of `step` in src/domain/claim.rs, checked against it by tests.
-- The forms of the value are those of src/idempotency/value.rs.
-- KEYS[1]: the key. ARGV[1]: the request, then its fields.
local stored = redis.call('GET', KEYS[1])
local state, G, N, deaths, token, floor, kind, json, cancelled

if stored then
  state = string.sub(stored, 1, 1)
  if state == 'h' then
    G, N, deaths, floor, token = string.match(stored, '^h (%d+) (%d+) (%d+) (%d+) (%x+)$')
  elseif state == 's' then
    G, N, deaths, token, kind, json = string.match(stored, '^s (%d+) (%d+) (%d+) (%x+) ([rb]) (.*)$')
  elseif state == 'o' then
    G, N, deaths = string.match(stored, '^o (%d+) (%d+) (%d+)$')
  elseif state == 'd' then
    G, token = string.match(stored, '^d (%d+) (%x+)$')
  elseif state == 'b' then
    cancelled = string.match(stored, '^b (%d+) c$')
    G = cancelled or string.match(stored, '^b (%d+)$')
  elseif state == 'v' then
    G = string.match(stored, '^v %x+ ') and '0'
  end
  if not G then return {'unreadable', stored} end
  G, N, deaths, floor = tonumber(G), tonumber(N), tonumber(deaths), tonumber(floor)
end

local function int(number) return string.format('%.0f', number) end
local function write(value, ttl) redis.call('SET', KEYS[1], value, 'PX', int(ttl)) end
local function held(g, n, d, f, t) return table.concat({'h', int(g), int(n), int(d), int(f), t}, ' ') end

local request = ARGV[1]

if request == 'claim' then
  local g, n, own, header = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
  local forced, in_suspect = tonumber(ARGV[6]), ARGV[7] == '1'
  local suspect_at, poisoned_at = tonumber(ARGV[8]), tonumber(ARGV[9])
  local lease, keep, poisoned = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]

  local function win(same_generation, takeover)
    local d = header
    if same_generation then
      d = math.max(deaths, header) + (takeover and 1 or 0)
    end
    if d >= poisoned_at then
      local value = table.concat({'s', int(g), int(n), int(d), own, 'b', poisoned}, ' ')
      write(value, keep)
      return {'resume', value}
    end
    if d >= suspect_at and not in_suspect then
      write(table.concat({'o', int(g), int(n), int(d)}, ' '), keep)
      return {'suspect', int(d)}
    end
    write(held(g, n, d, keep, own), lease + keep)
    return {'won', int(d), takeover and '1' or '0'}
  end

  if not stored then return win(false, false) end
  if state == 'v' then return {'decided', stored} end
  local lower = G and (g < G or (g == G and N and n < N))
  if state == 'd' then
    if forced > G then return win(false, false) end
    return {'done', token}
  elseif state == 'b' then
    if g > G then return win(false, false) end
    if cancelled then return {'cancelled', 'c'} end
    return {'superseded'}
  elseif state == 'h' then
    if token == own then
      write(held(g, n, deaths, keep, own), lease + keep)
      return {'won', int(deaths), '0'}
    end
    if lower then return {'superseded'} end
    local left = redis.call('PTTL', KEYS[1]) - floor
    if left > 0 then return {'busy', int(left)} end
    return win(g == G, true)
  elseif state == 's' then
    if g < G then return {'superseded'} end
    if g == G and (n <= N or kind == 'b') then return {'resume', stored} end
    return win(g == G, false)
  else -- out
    if lower then return {'superseded'} end
    return win(g == G, false)
  end

elseif request == 'renew' then
  if state == 'h' and token == ARGV[2] then
    redis.call('PEXPIRE', KEYS[1], int(tonumber(ARGV[3]) + floor))
    return {'ok'}
  end

elseif request == 'settle' then
  local own, value, keep = ARGV[2], ARGV[3], tonumber(ARGV[4])
  if not stored or (state == 'h' and token == own) then
    write(value, keep)
    return {'ok'}
  end
  if (state == 's' or state == 'd') and token == own then return {'ok'} end

elseif request == 'advance' then
  local g, n, own, keep = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
  if state == 's' and G == g and N == n and token == own then
    if kind == 'b' then
      write('b ' .. int(G), keep)
    else
      write(table.concat({'o', int(G), int(N + 1), int(deaths)}, ' '), keep)
    end
    return {'ok'}
  end

elseif request == 'release' then
  if state == 'h' and token == ARGV[2] then
    write(table.concat({'o', int(G), int(N), int(deaths)}, ' '), tonumber(ARGV[3]))
    return {'ok'}
  end

elseif request == 'cancel' then
  local g, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
  if state == 'd' then return {'done', token} end
  if state == 'v' then return {'not yours'} end
  if state == 'b' and not cancelled then return {'cancelled', 'b'} end
  write('b ' .. int(math.max(g, G or g)) .. ' c', keep)
  return {'cancelled', cancelled and 'c' or state or 'n'}

elseif request == 'decide' then
  if state == 'v' then return {'decided', stored} end
  write(ARGV[2], tonumber(ARGV[3]))
  return {'ok'}

elseif request == 'recall' then
  if state == 'v' then return {'decided', stored} end
end

return {'not yours'}
