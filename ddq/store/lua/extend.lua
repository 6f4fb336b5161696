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

return finish(each_item(ARGS + 1, 3, function(t, at)
  local token, lease_ms = ARGV[at + 1], tonumber(ARGV[at + 2])
  if not t then
    return unreadable(t, 0, 0)
  elseif t.state == LEASED and t.token == token then
    local expiry_ms = math.max(as_ms(get_score(K.leases, t.id)), now + lease_ms)
    transition('extend', t, LEASED, expiry_ms)
    return { 'OK', t.revision, expiry_ms }
  end
  return { 'LEASE_LOST', t.revision, 0 }
end))
