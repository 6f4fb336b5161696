-- ack: LEASED -> SUCCEEDED for who holds the token. A token that expired is good until
-- somebody else got the task, also when the task has been put back for a retry.
-- flags: allow-oom
-- argv: per task, 2 each: id, token
-- returns: per task {status, revision}; fewer than tasks: send the rest again
-- returns:   OK           finished, now or by an earlier ack with this token
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local results = {}
for at = ARGS + 1, #ARGV, 2 do
  if has_read_enough() then break end
  local id, token = ARGV[at], ARGV[at + 1]
  local t = load(id)
  local result
  if t == nil then
    result = { 'NOT_FOUND', 0 }
  elseif t == false then
    result = { 'MALFORMED', 0 }
  elseif #token > 0 and t.token == token and t.state <= LEASED then
    t.settled_token, t.verdict, t.token = token, ACKED, ''
    transition('ack', t, SUCCEEDED, now)
    result = { 'OK', t.revision }
  elseif t.settled_token == token and t.verdict == ACKED then
    result = { 'OK', t.revision }
  else
    result = { 'LEASE_LOST', t.revision }
  end
  results[#results + 1] = result
end
return finish(results)
