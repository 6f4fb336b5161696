-- extend: prolongs a lease from now on; never shortens it.
-- flags: allow-oom
-- argv: per task, 3 each: id, token, lease_ms
-- returns: per task {status, revision, expiry_ms}; fewer than tasks: send the rest again
-- returns:   OK           the lease runs until expiry_ms
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local results = {}
for at = ARGS + 1, #ARGV, 3 do
  if has_read_enough() then break end
  local id, token, lease_ms = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local t = load(id)
  local result
  if t == nil then
    result = { 'NOT_FOUND', 0, 0 }
  elseif t == false then
    result = { 'MALFORMED', 0, 0 }
  elseif t.state == LEASED and t.token == token then
    local expiry_ms = math.max(as_ms(redis.call('ZSCORE', K.leases, id)), now + lease_ms)
    transition('extend', t, LEASED, expiry_ms)
    result = { 'OK', t.revision, expiry_ms }
  else
    result = { 'LEASE_LOST', t.revision, 0 }
  end
  results[#results + 1] = result
end
return finish(results)
