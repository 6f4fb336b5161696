-- upgrade: one step of bringing a shard to the format that the operator has allowed for the store. The first
-- step sets the format: what is written from then on has it, and a ddq that does not know it is refused.
-- Each step gives some tasks and request records the new form; other scripts do so with those that they meet.
-- flags: allow-oom
-- argv: format            to be reached
-- argv: policy            the topic's retry policy, packed (records.py)
-- argv: limit             entries to look at
-- returns: {done}
-- returns:   done         0: call again; 1: all keys of the shard have this format
local refusal = begin()
if refusal then return refusal end

-- The walk goes through these in turn. control.moving: which one, length of the score, and score and member of
-- the last entry. No entry by an old name comes to the walked part: a task that changes gets the new one.
local INDEXES = { K.tasks, K.ready, K.leases, K.dead, K.finished, K.request_expiry }
local MOVING, MOVING_BYTES = '>BB', 2

local limit = tonumber(ARGV[ARGS + 3])
if control.format < tonumber(ARGV[ARGS + 1]) then
  control.format = tonumber(ARGV[ARGS + 1])
  control.moving = struct.pack(MOVING, 1, 0)
  redis.call('HSET', K.control, 'format', control.format, 'moving', control.moving)
end
keep_policy(ARGV[ARGS + 2])
if not control.moving then return finish({ 1 }) end

local place, score_bytes = struct.unpack(MOVING, control.moving)
local score = control.moving:sub(MOVING_BYTES + 1, MOVING_BYTES + score_bytes)
local member = control.moving:sub(MOVING_BYTES + 1 + score_bytes)

-- Whether a is behind b in the order of bytes; Lua compares strings by the server's locale.
local function is_behind(a, b)
  for at = 1, math.min(#a, #b) do
    local one, other = a:byte(at), b:byte(at)
    if one ~= other then return one > other end
  end
  return #a > #b
end

-- The rank of the first entry behind the last one, which may have another name or place by now.
local function next_rank(key)
  if score == '' then return 0 end
  local low, high = run('ZCOUNT', key, '-inf', '(' .. score), run('ZCOUNT', key, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_behind(run('ZRANGE', key, middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function upgrade_request(field)
  local kind, bytes, rest = field:match('^(%l+):(%d+):(.*)$')
  if not kind then return end
  local request_id, id = rest:sub(1, tonumber(bytes)), rest:sub(tonumber(bytes) + 2)
  local name = packed_id(id)
  if name == id then return end
  local new = request_field(kind, request_id, name)
  -- A record that was made since is the later one.
  if get_field(K.requests, new) then
    set_field(K.requests, field, false)
    set_score(K.request_expiry, field, false)
  else
    old_names().rename_field(K.requests, field, new)
    old_names().rename_member(K.request_expiry, field, new)
  end
end

local function upgrade_record(id)
  local record = get_field(K.payloads, id)
  local payload = unpack_payload(record)
  if not payload or record:byte(1) ~= RECORD then return end
  local head = packed_policy(payload) .. struct.pack('>I4', payload.headers_bytes)
  local content = record:sub(payload.head_bytes + 1)
  set_field(K.payloads, id, pack_payload(payload.incarnation, payload.enqueued_ms, payload.due_ms, head,
    payload.digest, content))
end

while limit > 0 and INDEXES[place] do
  local key = INDEXES[place]
  local first = next_rank(key)
  local members = run('ZRANGE', key, first, first + limit - 1, 'WITHSCORES')
  local names = {}
  for at = 1, #members do names[at] = members[at] end
  if key ~= K.request_expiry then renamed(key, names, 2) end
  local read = 0
  for at = 1, #members, 2 do
    if key == K.request_expiry then
      upgrade_request(members[at])
    else
      if has_read_enough(names[at]) then break end
      read_ahead(names, at, 2)
      upgrade_record(names[at])
    end
    member, score, read = members[at], members[at + 1], at + 1
  end
  limit = limit - #members / 2
  if read < #members then break end
  if limit > 0 then place, member, score = place + 1, '', '' end
end

if INDEXES[place] then
  redis.call('HSET', K.control, 'moving', struct.pack(MOVING, place, #score) .. score .. member)
  return finish({ 0 })
end
redis.call('HDEL', K.control, 'moving')
return finish({ 1 })
