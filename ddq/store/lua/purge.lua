-- purge: everything that the shard held when the request began ends as PURGED. The first call
-- draws a cut in the sequence, and from then on no task at or below it moves again (prelude,
-- is_cut): what is left to do, in bounded steps, is to collect them. A repeat finds the cut of
-- its first call, so a task enqueued since is never touched.
-- flags: allow-oom
-- argv: request_id
-- argv: limit             entries to look at; 0: only draw the cut
-- argv: state             of the index to go on with: 1, 2, 3 or 5
-- argv: score             of the last entry looked at; '' at the start of an index
-- argv: id                likewise
-- returns: {purged, done, state, score, id}
-- returns:   done         0: call again with state, score and id
local refusal = begin({ while_deleting = true })
if refusal then return refusal end

local request_id, limit = ARGV[ARGS + 1], tonumber(ARGV[ARGS + 2])
local state, score, id = tonumber(ARGV[ARGS + 3]), ARGV[ARGS + 4], ARGV[ARGS + 5]
local cut = tonumber(recall('purge', request_id) or control.sequence)
remember('purge', request_id, nil, cut)
if cut > control.purge_cut then
  control.purge_cut = cut
  redis.call('HSET', K.control, 'purge_cut', cut)
end

if limit == 0 then return finish({ 0, 0, state, score, id }) end

local purged = 0
local from = rank_behind(INDEX[state], score, id)
local page = redis.call('ZRANGE', INDEX[state], from, from + limit - 1, 'WITHSCORES')
local stopped = false
for at = 1, #page, 2 do
  if loaded_bytes >= LOAD_BOUND then
    stopped = true
    break
  end
  local before = counts.purged or 0
  local t = examine(page[at], state)
  purged = purged + (counts.purged or 0) - before
  -- What stays is newer than the cut: the walk goes on behind it.
  if t then id, score = page[at], page[at + 1] end
end
if not stopped and #page < 2 * limit then
  local next_state = { READY, LEASED, DEAD, 0, 0 }
  state, score, id = next_state[state], '', ''
end
return finish({ purged, state == 0 and 1 or 0, state, score, id })
