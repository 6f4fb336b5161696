-- release: hands a lease back: READY again, and the attempt does not count.
-- flags: allow-oom
-- argv: per task, 2 each: id, token
-- returns: per task {status, revision}; fewer than tasks: send the rest again
-- returns:   OK           done, now or by an earlier release with this token
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local results, released = {}, 0
for at = ARGS + 1, #ARGV, 2 do
  if has_read_enough() then break end
  local id, token = ARGV[at], ARGV[at + 1]
  local t = load(id)
  local result
  if t == nil then
    result = { 'NOT_FOUND', 0 }
  elseif t == false then
    result = { 'MALFORMED', 0 }
  elseif t.state == LEASED and t.token == token then
    t.settled_token, t.verdict, t.token = token, RELEASED, ''
    t.attempt = t.attempt - 1
    transition('release', t, READY, t.due_ms)
    released = released + 1
    result = { 'OK', t.revision }
  elseif t.settled_token == token and t.verdict == RELEASED then
    result = { 'OK', t.revision }
  else
    result = { 'LEASE_LOST', t.revision }
  end
  results[#results + 1] = result
end
if released > 0 then hint('ready', released) end
return finish(results)
