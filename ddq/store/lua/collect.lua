-- collect: forgets tombstones and request records whose time is over, a bounded number a call.
-- flags: allow-oom
-- argv: limit             entries of each kind
-- returns: {tombstones, requests, next_due_ms, next_expiry_ms, next_collect_ms}
local refusal = begin()
if refusal then return refusal end

local limit = tonumber(ARGV[ARGS + 1])
local old = string.format('%.0f', now - control.retention_ms)
local tombstones =
  renamed(K.finished, run('ZRANGEBYSCORE', K.finished, '-inf', old, 'LIMIT', 0, limit), 1)
local collected = 0
for at, id in ipairs(tombstones) do
  -- A tombstone has no payload; what was put there by hand may have one.
  if has_read_enough(id) then break end
  read_ahead(tombstones, at, 1)
  collected = collected + 1
  local t = load(id)
  set_score(K.finished, id, false)
  -- Only a tombstone goes with its entry; an entry put there by hand goes alone.
  if t == false or t and not HELD[t.state] and not t.cut_from then
    if not get_field(K.payloads, id) then set_field(K.states, id, false) end
  else
    count('stray', 1)
  end
end
local expired = run('ZRANGEBYSCORE', K.request_expiry, '-inf',
  string.format('%.0f', now), 'LIMIT', 0, limit)
for _, field in ipairs(expired) do
  set_score(K.request_expiry, field, false)
  set_field(K.requests, field, false)
end
return finish({ collected, #expired, next_wake_up() })
