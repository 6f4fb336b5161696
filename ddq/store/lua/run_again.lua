-- run_again: LEASED -> SUCCEEDED for the holder of the token, as ack does, and in the same script a new
-- incarnation of the id, SCHEDULED. A request record by the token holds what was made: without it a
-- repeat that comes when the next run is leased already could not be distinguished from another client's request.
-- flags: allow-oom
-- argv: per task, 5 each:
-- argv:   id
-- argv:   token
-- argv:   schedule        'delay' (ms from now) or 'at' (ms since 1970)
-- argv:   value_ms
-- argv:   content         digest, headers and payload (records.py); '' for those of this run
-- returns: per task {status, revision, incarnation, due_ms}; fewer than tasks: send the rest again
-- returns:   OK           finished, and its next run made, now or by this token before
-- returns:   LEASE_LOST   the token does not hold; nothing changed
-- returns:   NOT_FOUND    the id is unknown
-- returns:   MALFORMED    the records of the id or the token cannot be read
local refusal = begin()
if refusal then return refusal end

-- Where in the argument the length of the headers begins, and where what it counts.
local LENGTH_AT, CONTENT_AT = 17, 21

local function hex(bytes)
  return (bytes:gsub('.', function(byte) return string.format('%02x', byte:byte()) end))
end

local head_ms = first_score(K.tasks)
local earliest_ms
local results = each_item(ARGS + 1, 5, function(t, at)
  local id, token, schedule = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local value_ms, content = tonumber(ARGV[at + 3]), ARGV[at + 4]
  local done = recall_numbers('next', hex(token), id, 2)
  if done then
    return { 'OK', done[1], done[1], done[2] }
  elseif done == false or not t then
    return unreadable(done ~= false and t, 0, 0, 0)
  elseif #token > 0 and t.token == token and t.state <= LEASED then
    local due_ms = schedule == 'delay' and now + value_ms or math.max(value_ms, now)
    local policy, length, digest = packed_policy(t.payload), nil, nil
    if content == '' then
      length, digest = struct.pack('>I4', t.payload.headers_bytes), t.payload.digest
      content = t.record:sub(t.payload.head_bytes + 1)
    else
      length, digest = content:sub(LENGTH_AT, CONTENT_AT - 1), content:sub(1, LENGTH_AT - 1)
      content = content:sub(CONTENT_AT)
    end
    t.settled_token, t.verdict, t.token = token, ACKED, ''
    transition('ack', t, SUCCEEDED, now)
    forget(id)
    t = create(id, now, due_ms, policy .. length, digest, content)
    remember('next', hex(token), id, struct.pack('>I8I8', t.incarnation, due_ms))
    earliest_ms = earlier(earliest_ms, due_ms)
    return { 'OK', t.incarnation, t.incarnation, due_ms }
  end
  return { 'LEASE_LOST', t.revision, 0, 0 }
end)
hint_if_earlier(head_ms, earliest_ms)
return finish(results)
