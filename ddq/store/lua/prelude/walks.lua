-- Many tasks in one script: the items of a batch, and walks through an index over several scripts.

-- Answers for the items of a batch, in order, until enough was read. An item is `width` values of
-- ARGV from `first` on, its id first. answer(t, at) returns the result of one: t as load() returns
-- it, at the place of its id in ARGV.
local function each_item(first, width, answer)
  local results = {}
  if control.format < COMPACT then
    for at = first, #ARGV, width do ARGV[at] = id_text(ARGV[at]) end
  end
  for at = first, #ARGV, width do
    if has_read_enough(ARGV[at]) then break end
    read_ahead(ARGV, at, width)
    results[#results + 1] = answer(load(ARGV[at]), at)
  end
  return results
end

-- The result for an id that is unknown (nil) or whose records cannot be read (false).
local function unreadable(t, ...)
  return { t == nil and 'NOT_FOUND' or 'MALFORMED', ... }
end

-- Walks: a request that takes many scripts remembers the sequence and time of its first one,
-- which draw the line before what came later, and where in which index the last one ended.
local WALK_HEAD, WALK_HEAD_BYTES = '>I8I8BB', 18

-- Returns the walk, or nil and the refusal when its record cannot be read.
local function recall_walk(kind, request_id, first_state)
  local record = recall(kind, request_id)
  if not record then
    return { cut = control.sequence, cut_ms = now, state = first_state, score = '', id = '' }
  end
  if #record >= WALK_HEAD_BYTES then
    local walk = {}
    local score_bytes
    walk.cut, walk.cut_ms, walk.state, score_bytes = struct.unpack(WALK_HEAD, record)
    walk.score = record:sub(WALK_HEAD_BYTES + 1, WALK_HEAD_BYTES + score_bytes)
    walk.id = record:sub(WALK_HEAD_BYTES + 1 + score_bytes)
    if walk.cut <= control.sequence and (walk.state == 0 or INDEX[walk.state])
        and (walk.score == '' or tonumber(walk.score)) then
      return walk
    end
  end
  return nil, refuse('MALFORMED', K.requests .. ' field ' .. request_field(kind, request_id))
end

local function remember_walk(kind, request_id, walk)
  remember(kind, request_id, nil, struct.pack(WALK_HEAD, walk.cut, walk.cut_ms, walk.state,
    #walk.score) .. walk.score .. walk.id)
end

-- Where a walk through an index continues behind (score, id), though the id may have moved.
local function rank_behind(key, score, id)
  if score == '' then return 0 end
  id = packed_id(id)
  local rank = run('ZRANK', key, id)
  local at = rank and get_score(key, id)
  if rank and tonumber(at) == tonumber(score) then return rank + 1 end
  return run('ZCOUNT', key, '-inf', '(' .. score)
end
