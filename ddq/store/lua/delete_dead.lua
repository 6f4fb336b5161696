-- delete_dead: DEAD -> PURGED for one task.
-- flags: allow-oom
-- argv: id
-- argv: expected          revision; '' for any
-- returns: {status, revision}
-- returns:   OK           purged, now or before
-- returns:   NOT_DEAD     it is in another state
-- returns:   REVISION     the task is at another revision
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local id, expected = name_of(ARGV[ARGS + 1]), ARGV[ARGS + 2]
local t = load(id)
if t == nil then return finish({ 'NOT_FOUND', 0 }) end
if t == false then return finish({ 'MALFORMED', 0 }) end
if t.state == PURGED then return finish({ 'OK', t.revision }) end
if t.state ~= DEAD then return finish({ 'NOT_DEAD', t.revision }) end
if expected ~= '' and tonumber(expected) ~= t.revision then
  return finish({ 'REVISION', t.revision })
end
purge_task(t)
return finish({ 'OK', t.revision })
