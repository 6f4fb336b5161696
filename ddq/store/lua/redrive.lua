-- redrive: DEAD -> SCHEDULED, due now, with a new run of attempts. The first call of a
-- request notes the sequence it began at: what dies after that is not redriven by a repeat.
-- flags: allow-oom
-- argv: request_id
-- argv: limit             entries to look at when no ids are given
-- argv: id                per task; none: all that are dead
-- returns: {redriven, done, {status} per id}; fewer than ids: send the rest again
-- returns:   done         0: call again
-- returns:   OK           redriven, now or by this request before
-- returns:   NOT_DEAD     it is in another state, or was when the request began
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the id's records cannot be read
local refusal = begin()
if refusal then return refusal end

local request_id, limit = ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])
local walk, problem = recall_walk('redrive', request_id, DEAD)
if not walk then return problem end

local head_ms = first_score(K.tasks)
local redriven = 0
local function redrive(t)
  t.run, t.attempt, t.snoozes, t.due_ms = t.run + 1, 0, 0, now
  t.token, t.settled_token, t.verdict = '', '', NONE
  transition('redrive', t, SCHEDULED, now)
  redriven = redriven + 1
end

local done, results = 1, {}
if #ARGV > ARGS + 2 then
  results = each_item(ARGS + 3, 1, function(t, at)
    local id = ARGV[at]
    if not t then
      return unreadable(t)[1]
    elseif recall('redriven', request_id, id) then
      return 'OK'
    elseif t.state ~= DEAD or t.revision > walk.cut then
      -- What died after the request began was not dead when it was first answered.
      return 'NOT_DEAD'
    end
    redrive(t)
    remember('redriven', request_id, id, '1')
    return 'OK'
  end)
else
  -- Ordered by the time of death, and the clock never runs back: what died after the cut is
  -- at the end, but for what died in the same millisecond.
  local from = rank_behind(K.dead, walk.score, walk.id)
  local page = renamed(K.dead, run('ZRANGE', K.dead, from, from + limit - 1, 'WITHSCORES'), 2)
  if #page == 2 * limit then done = 0 end
  for at = 1, #page, 2 do
    if as_ms(page[at + 1]) > walk.cut_ms then
      done = 1
      break
    end
    if has_read_enough(page[at]) then
      done = 0
      break
    end
    read_ahead(page, at, 2)
    local t = examine(page[at], DEAD)
    if t and t.revision > walk.cut then
      walk.id, walk.score = page[at], page[at + 1]
    elseif t then
      redrive(t)
    end
  end
end
remember_walk('redrive', request_id, walk)
if redriven > 0 then hint_if_earlier(head_ms, now) end
return finish({ redriven, done, results })
