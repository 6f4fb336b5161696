-- list: one page of the tasks in one state, in the order of its index.
-- flags: allow-oom
-- argv: state             number of the state
-- argv: full              '1': with payloads
-- argv: limit             entries to look at
-- argv: max_bytes         of what is returned, with envelope_bytes a task; one task may be larger
-- argv: envelope_bytes    of a reply's other fields, without ids and errors
-- argv: score             of the last entry of the page before; '' for the first page
-- argv: id                likewise
-- returns: {more, score, id, {id, payload record, state record, score, payload record bytes} ...},
-- returns:   and behind that: policies (records.py)
-- returns:   more         1: there may be another page, behind (score, id); 2: there is, and this
-- returns:   one ended because the script has read enough
local refusal = begin()
if refusal then return refusal end

local state, full = tonumber(ARGV[ARGS + 1]), ARGV[ARGS + 2] == '1'
local limit, max_bytes = tonumber(ARGV[ARGS + 3]), tonumber(ARGV[ARGS + 4])
local envelope_bytes = tonumber(ARGV[ARGS + 5])
local score, id = ARGV[ARGS + 6], ARGV[ARGS + 7]
local key = INDEX[state]
local from = rank_behind(key, score, id)
local page = renamed(key, run('ZRANGE', key, from, from + limit - 1, 'WITHSCORES'), 2)
local results, bytes = {}, 0
local more = #page == 2 * limit and 1 or 0
for at = 1, #page, 2 do
  if has_read_enough(page[at]) then
    more = 2
    break
  end
  read_ahead(page, at, 2)
  local t = load(page[at])
  local record = t and t.payload and t.record or ''
  if record ~= '' and not full then
    record = record:sub(1, t.payload.head_bytes + t.payload.headers_bytes)
  end
  -- Entries of another state share the index of finished ones, or were put there by hand.
  local wanted = t and t.state == state and not t.cut_from
  local state_record = wanted and pack_state(t) or ''
  bytes = bytes + #record + id_bytes(page[at]) + #state_record + envelope_bytes
  if bytes > max_bytes and #results > 0 then
    more = 1
    break
  end
  id, score = page[at], page[at + 1]
  if wanted then
    results[#results + 1] = { id, record, state_record, as_ms(score), #t.record }
  end
end
return finish({ more, score, id, results }, control.policies)
