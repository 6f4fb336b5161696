-- purge: everything that the shard held when the request began ends as PURGED. The first call
-- sets the purge watermark, and from then on no task at or below it moves again (prelude,
-- is_cut): what is left to do, in bounded steps, is to collect them. A repeat finds the cut of
-- its first call, so a task enqueued since is never touched, and continues where the last step
-- ended: otherwise tasks enqueued since could keep it scanning without an end.
-- flags: allow-oom
-- argv: request_id
-- argv: limit             entries to look at; 0: only draw the cut
-- returns: {purged, done}
-- returns:   done         0: call again
local refusal = begin({ while_deleting = true })
if refusal then return refusal end
if control.erased == 1 then return finish({ 0, 1 }) end

local request_id, limit = ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])
local walk, problem = recall_walk('purge', request_id, SCHEDULED)
if not walk then return problem end
if walk.cut > control.purge_cut then
  control.purge_cut = walk.cut
  redis.call('HSET', K.control, 'purge_cut', walk.cut)
end

local NEXT = { READY, LEASED, DEAD, nil, 0 }
local purged = 0
while limit > 0 and walk.state ~= 0 do
  local index = INDEX[walk.state]
  local from = rank_behind(index, walk.score, walk.id)
  local page = renamed(index, run('ZRANGE', index, from, from + limit - 1, 'WITHSCORES'), 2)
  for at = 1, #page, 2 do
    if has_read_enough(page[at]) then
      limit = 0
      break
    end
    limit = limit - 1
    local before = counts.purged or 0
    read_ahead(page, at, 2)
    local t = examine(page[at], walk.state)
    purged = purged + (counts.purged or 0) - before
    -- What stays is newer than the cut: the walk continues behind it.
    if t then walk.id, walk.score = page[at], page[at + 1] end
  end
  if limit > 0 then walk.state, walk.score, walk.id = NEXT[walk.state], '', '' end
end
remember_walk('purge', request_id, walk)
return finish({ purged, walk.state == 0 and 1 or 0 })
