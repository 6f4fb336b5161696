-- collect: forgets tombstones and request records whose time is over, a bounded number a call.
-- flags: allow-oom
-- argv: limit             entries of each kind
-- returns: {tombstones, requests, next_due_ms, next_expiry_ms, next_collect_ms}
local refusal = begin()
if refusal then return refusal end

local limit = tonumber(ARGV[ARGS + 1])
local old = string.format('%.0f', now - control.retention_ms)
local tombstones = redis.call('ZRANGEBYSCORE', K.finished, '-inf', old, 'LIMIT', 0, limit)
local collected = 0
for _, id in ipairs(tombstones) do
  -- A tombstone has no payload; what was put there by hand may have one.
  if has_read_enough() then break end
  collected = collected + 1
  local t = load(id)
  redis.call('ZREM', K.finished, id)
  -- Only a tombstone goes with its entry; an entry put there by hand goes alone.
  if t == false or t and not HELD[t.state] and not t.cut_from then
    if not redis.call('HGET', K.payloads, id) then redis.call('HDEL', K.states, id) end
  else
    count('stray', 1)
  end
end
local expired = redis.call('ZRANGEBYSCORE', K.request_expiry, '-inf',
  string.format('%.0f', now), 'LIMIT', 0, limit)
for _, field in ipairs(expired) do
  redis.call('ZREM', K.request_expiry, field)
  redis.call('HDEL', K.requests, field)
end
return finish({ collected, #expired, next_wake_up() })
