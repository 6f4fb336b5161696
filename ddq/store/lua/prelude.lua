-- What every script of a shard begins with: its keys, its records, its checks and the one
-- function that moves a task. A script that fails midway is not rolled back, so a script
-- first calls begin(), then loads and checks every member, and only then writes.

local K = {
  control = KEYS[1], tasks = KEYS[2], ready = KEYS[3], leases = KEYS[4],
  payloads = KEYS[5], states = KEYS[6], dead = KEYS[7], finished = KEYS[8],
  requests = KEYS[9], request_expiry = KEYS[10], journal = KEYS[11],
}
local KEY_TYPES = {
  'hash', 'zset', 'zset', 'zset', 'hash', 'hash', 'zset', 'zset', 'hash', 'zset', 'stream',
}

-- ARGV 1-10 are the same for every script; its own begin behind them.
local CALL = {
  uid = ARGV[1],                    -- of the topic: a topic made anew has a greater one
  settings_revision = tonumber(ARGV[2]), -- that the caller believes in
  shards = tonumber(ARGV[3]),       -- that the caller routes by
  clock_ms = tonumber(ARGV[4]),     -- the caller's clock when it sent the script
  max_skew_ms = tonumber(ARGV[5]),
  lineage = ARGV[6],                -- random tag of this call
  not_after_ms = tonumber(ARGV[7]), -- 0: no bound
  process = ARGV[8],                -- names the counter of the caller's process; '' for none
  acked = tonumber(ARGV[9]),        -- what that counter was when a reply last reached QUORUM or ALL
  recovery = tonumber(ARGV[10]),    -- number of the recovery that the caller knows of
}
local ARGS = 10
local PROCESS_KEPT_MS = 7200000   -- a counter that is not used any more; processes rename hourly
local NAMES_STEP = 64             -- fields that are looked at for such counters when a name is new

local FORMAT = 1                  -- of keys and records
local MAX_MS = 9007199254740991   -- 2^53 - 1: the largest integer that a Lua number holds exactly

local SCHEDULED, READY, LEASED, SUCCEEDED, DEAD, CANCELLED, PURGED = 1, 2, 3, 4, 5, 6, 7
local NAME = { 'scheduled', 'ready', 'leased', 'succeeded', 'dead', 'cancelled', 'purged' }
local INDEX = { K.tasks, K.ready, K.leases, K.finished, K.dead, K.finished, K.finished }
-- These hold a payload and count towards max_tasks; leaving them lowers their counter.
local HELD = { true, true, true, false, true, false, false }

-- What became of the token that was settled last.
local NONE, ACKED, RETRIED, BURIED, RELEASED, SNOOZED = 0, 1, 2, 3, 4, 5

local COUNTERS = {
  'enqueued', 'scheduled', 'ready', 'leased', 'succeeded', 'dead', 'cancelled', 'purged',
  'set_aside', 'stray',
}
-- Fields of control that are numbers; one that is absent is 0.
local NUMBERS = {
  'format', 'shards', 'settings_revision', 'paused', 'deleting', 'max_tasks', 'retention_ms',
  'journal', 'journal_max', 'sequence', 'mark_ms', 'purge_cut', 'epoch', 'leader_until_ms',
  'erased', 'recovery',
}

local control = {}        -- what control holds, and what finish() writes back
local counts = {}         -- counter -> change made by this script
local now = 0             -- store time of this call, ms; never behind an earlier one
local loaded_bytes = 0    -- of records read so far: scripts stop at LOAD_BOUND
local LOAD_BOUND = 4194304

local process_count = 0   -- of the caller's process, this call included
local refusal_writes = false

local function refuse(status, detail)
  -- A refusal is an answer too, and WAIT has to speak of it: a deposed master must not be believed
  -- when it says that a topic is being deleted.
  if refusal_writes then
    redis.call('HSET', K.control, 'refused_ms', string.format('%.0f', now_ms()))
  end
  return { status, now, control.sequence or 0, control.lineage or '', detail or '' }
end

-- A score as whole ms; one that was put there by hand may be anything.
local function as_ms(score)
  local ms = tonumber(score)
  if not ms or ms ~= ms or ms < 0 then return 0 end
  if ms > MAX_MS then return MAX_MS end
  return math.floor(ms)
end

local function first_score(key)
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and as_ms(head[2])
end

local function process_field(name) return 'p:' .. name end

-- A process counts its calls in a field of its own, and sends along how far that had come when a
-- reply last reached a majority or all. A store that knows less than that has lost what it
-- acknowledged. One number for all processes is not enough: the others would move it past the loss.
local function find_rollback()
  if CALL.process == '' then return nil end
  local seen = redis.call('HGET', K.control, process_field(CALL.process))
  process_count = seen and tonumber(seen:match('^%d+')) or 0
  local same_life = (not control.uid or control.uid == CALL.uid) and control.erased == 0
  if CALL.acked > process_count and same_life and control.recovery <= CALL.recovery then
    return string.format('process %s has had %.0f calls confirmed, the store knows of %.0f',
      CALL.process, CALL.acked, process_count)
  end
  if not seen then
    -- A new name: the moment to forget old ones, a part of them at a time. A process that starts over
    -- and over leaves thousands: more than one script can remove.
    local cursor = (redis.call('HGET', K.control, 'names_cursor') or '0'):match('^%d+$') or '0'
    local page = redis.call('HSCAN', K.control, cursor, 'COUNT', NAMES_STEP)
    if page[1] ~= '0' then
      redis.call('HSET', K.control, 'names_cursor', page[1])
    elseif cursor ~= '0' then
      redis.call('HDEL', K.control, 'names_cursor')
    end
    local stale = {}
    local fields = page[2]
    for i = 1, #fields, 2 do
      local used_ms = fields[i]:sub(1, 2) == 'p:' and tonumber(fields[i + 1]:match(' (%d+)$') or 0)
      if used_ms and used_ms < control.mark_ms - PROCESS_KEPT_MS then stale[#stale + 1] = fields[i] end
    end
    if #stale > 0 then redis.call('HDEL', K.control, unpack(stale)) end
  end
  process_count = process_count + 1
end

-- Types, control, rollback, topic, clock and age of the request, in this order, before anything is
-- written. Returns nil, or the refusal to reply with.
local function begin(options)
  options = options or {}
  for i, expected in ipairs(KEY_TYPES) do
    local actual = redis.call('TYPE', KEYS[i]).ok
    if actual ~= 'none' and actual ~= expected then
      return refuse('MALFORMED', KEYS[i] .. ' is a ' .. actual .. ', not a ' .. expected)
    end
  end

  local fields = { 'uid', 'lineage', 'nonce' }
  for _, name in ipairs(NUMBERS) do fields[#fields + 1] = name end
  for _, name in ipairs(COUNTERS) do fields[#fields + 1] = 'n:' .. name end
  local values = redis.call('HMGET', K.control, unpack(fields))
  for i, name in ipairs(fields) do
    local value = values[i]
    if i > 3 then
      local number = value == false and 0 or tonumber(value)
      if not number or number ~= math.floor(number) or number < 0 or number > MAX_MS then
        return refuse('MALFORMED', K.control .. ' field ' .. name .. ' is not a whole number')
      end
      value = number
    end
    control[name] = value
  end
  control.lineage = control.lineage or ''

  if control.format > FORMAT then
    return refuse('FORMAT', 'the store was written by format ' .. control.format)
  end
  refusal_writes = control.uid ~= false
  local rollback = find_rollback()
  if rollback then return refuse('ROLLBACK', rollback) end
  -- An erased shard has no settings any more; a deletion that broke off goes through it again.
  local erased = options.while_deleting and control.uid == CALL.uid and control.erased == 1
  if not options.any_topic and not erased and (control.uid ~= CALL.uid
      or control.settings_revision ~= CALL.settings_revision
      or control.shards ~= CALL.shards) then
    return refuse('TOPIC_CHANGED')
  end

  -- A clock that is far off is refused before the mark moves: one look at a clock an hour
  -- ahead would freeze the shard for that hour.
  local clock = now_ms()
  if not options.any_clock then
    if math.abs(clock - CALL.clock_ms) > CALL.max_skew_ms then
      -- With the store's time: the caller sees by it whether the script was only late.
      now = clock
      return refuse('CLOCK_UNSAFE', string.format(
        'the store says %.0f ms, the caller %.0f ms', clock, CALL.clock_ms))
    end
    if not options.any_mark and control.mark_ms - clock > CALL.max_skew_ms then
      return refuse('CLOCK_UNSAFE', string.format(
        'the store says %.0f ms, but has been at %.0f ms', clock, control.mark_ms))
    end
  end
  now = math.max(clock, control.mark_ms)
  -- A clock that was not compared is not trusted, and does not move the mark.
  if options.any_clock then now = control.mark_ms end
  if CALL.not_after_ms > 0 and now > CALL.not_after_ms then
    return refuse('REQUEST_EXPIRED')
  end
  if control.deleting == 1 and not options.while_deleting then
    return refuse('TOPIC_DELETING')
  end
  -- Every call takes a number, also one that changes nothing: without a write WAIT would
  -- answer for an older one, and a "not found" could come from a deposed master.
  control.sequence = control.sequence + 1
end

local function count(name, by)
  counts[name] = (counts[name] or 0) + by
end

-- Writes control back and builds the reply. The last thing a script does.
local function finish(...)
  local fields = {
    'sequence', control.sequence, 'mark_ms', now, 'lineage', control.lineage,
  }
  for name, by in pairs(counts) do
    fields[#fields + 1] = 'n:' .. name
    -- What was put there by hand was never counted; a counter below 0 would end every call.
    fields[#fields + 1] = math.max(0, control['n:' .. name] + by)
  end
  if CALL.process ~= '' then
    fields[#fields + 1] = process_field(CALL.process)
    fields[#fields + 1] = string.format('%.0f %.0f', process_count, now)
  end
  redis.call('HSET', K.control, unpack(fields))
  local reply = { 'OK', now, control.sequence, control.lineage, ... }
  reply[#reply + 1] = { process_count, control.recovery }
  return reply
end

-- Records --------------------------------------------------------------------------------
-- payloads[id], written once: format, incarnation, enqueued ms, first due ms, then what the
-- caller packed: retry policy, digest, headers, payload (ddq/store/records.py).
local PAYLOAD_HEAD = '>BI8I8I8I4I8I8I4I4c16I4'
local PAYLOAD_HEAD_BYTES = 73

local function unpack_payload(record)
  if not record or #record < PAYLOAD_HEAD_BYTES or record:byte(1) ~= FORMAT then return nil end
  local p = {}
  local _
  _, p.incarnation, p.enqueued_ms, p.due_ms, p.max_attempts, p.initial_backoff_ms,
    p.max_backoff_ms, p.multiplier_milli, p.jitter_milli, p.digest, p.headers_bytes =
    struct.unpack(PAYLOAD_HEAD, record)
  if #record < PAYLOAD_HEAD_BYTES + p.headers_bytes or p.incarnation > MAX_MS then return nil end
  return p
end

-- states[id]: absent for a task that was never touched since its enqueue.
local STATE_HEAD = '>BBI8I8I4I4I4I8I8B'
local STATE_HEAD_BYTES = 47

local function pack_state(t)
  local record = struct.pack(STATE_HEAD .. 'Bc0Bc0Bc0Bc0I2c0', FORMAT, t.state, t.revision,
    t.incarnation, t.promotion, t.attempt, t.run, t.due_ms, t.updated_ms, t.verdict,
    #t.token, t.token, #t.settled_token, t.settled_token, #t.digest, t.digest,
    #t.request_id, t.request_id, #t.last_error, t.last_error)
  -- Came with 0.3: at the end, where 0.2 does not look, and only where there is something to
  -- count. 0.2 drops it when it writes the record: the task may then be snoozed more often.
  if t.snoozes == 0 then return record end
  return record .. struct.pack('>I4', t.snoozes)
end

local function unpack_state(record)
  if #record < STATE_HEAD_BYTES or record:byte(1) ~= FORMAT then return nil end
  local t = {}
  local _, at
  _, t.state, t.revision, t.incarnation, t.promotion, t.attempt, t.run, t.due_ms,
    t.updated_ms, t.verdict, at = struct.unpack(STATE_HEAD, record)
  for _, name in ipairs({ 'token', 'settled_token', 'digest', 'request_id', 'last_error' }) do
    local length_bytes = name == 'last_error' and 2 or 1
    if #record < at + length_bytes - 1 then return nil end
    local length = struct.unpack(length_bytes == 2 and '>I2' or 'B', record, at)
    at = at + length_bytes
    if #record < at + length - 1 then return nil end
    t[name] = record:sub(at, at + length - 1)
    at = at + length
  end
  t.snoozes = #record >= at + 3 and struct.unpack('>I4', record, at) or 0
  if not NAME[t.state] or t.revision > MAX_MS or t.incarnation > MAX_MS then return nil end
  return t
end

-- A task that the purge cut covers is gone for every reader, though the sweep has not yet
-- collected it: no transition can carry it past the sweep.
local function is_cut(t)
  return HELD[t.state] and t.incarnation <= control.purge_cut
end

-- A part of a hash's field cannot be read, so a task costs its whole payload. A script that has read
-- this much answers for what it has done; its caller sends the rest again.
local function has_read_enough()
  return loaded_bytes >= LOAD_BOUND
end

-- Returns the task, nil when the id is unknown, or false when its records cannot be read.
local function load(id)
  local record = redis.call('HGET', K.payloads, id)
  local state = redis.call('HGET', K.states, id)
  loaded_bytes = loaded_bytes + (record and #record or 0) + (state and #state or 0)
  if not record and not state then return nil end
  local payload = unpack_payload(record)
  local t
  if state then
    t = unpack_state(state)
    if not t or (HELD[t.state] and (not payload or payload.incarnation ~= t.incarnation)) then
      return false
    end
    t.payload = HELD[t.state] and payload or nil
  else
    if not payload then return false end
    t = {
      state = SCHEDULED, revision = payload.incarnation, incarnation = payload.incarnation,
      promotion = 0, attempt = 0, run = 1, due_ms = payload.due_ms, updated_ms = 0,
      verdict = NONE, token = '', settled_token = '', digest = '', request_id = '',
      last_error = '', snoozes = 0, payload = payload,
    }
  end
  t.id = id
  t.record = record or ''
  if is_cut(t) then
    t.cut_from = t.state
    t.state = PURGED
  end
  return t
end

local acting_epoch   -- of the scheduler that this call is of; nil for every other caller

local function journal(op, t, from)
  if control.journal ~= 1 then return end
  redis.call('XADD', K.journal, 'MAXLEN', '~', control.journal_max, '*',
    'op', op, 'id', t.id, 'incarnation', t.incarnation, 'revision', t.revision,
    'from', from and NAME[from] or 'none', 'to', NAME[t.state], 'promotion', t.promotion,
    'attempt', t.attempt, 'run', t.run, 'due_ms', t.due_ms, 'at_ms', now,
    'epoch', acting_epoch or control.epoch, 'lineage', CALL.lineage)
end

-- The one way a task changes: index, counters, record and journal move together.
-- score: due ms, expiry ms, or the time of its end, as the index it goes to wants.
local function transition(op, t, to, score)
  local from = t.cut_from or t.state
  if INDEX[from] ~= INDEX[to] then redis.call('ZREM', INDEX[from], t.id) end
  redis.call('ZADD', INDEX[to], string.format('%.0f', score), t.id)
  if HELD[from] then count(NAME[from], -1) end
  count(NAME[to], 1)
  control.sequence = control.sequence + 1
  control.lineage = CALL.lineage
  t.state, t.cut_from = to, nil
  t.revision = control.sequence
  t.updated_ms = now
  if not HELD[to] then
    -- The tombstone: enough to answer a late cancel or repeat truthfully.
    redis.call('HDEL', K.payloads, t.id)
    if t.payload then t.digest = t.payload.digest end
    t.last_error = ''
  end
  redis.call('HSET', K.states, t.id, pack_state(t))
  journal(op, t, from)
end

-- A new incarnation of an id that nothing holds. tail: what the caller packed, records.py.
local function create(id, since_ms, due_ms, tail)
  control.sequence = control.sequence + 1
  control.lineage = CALL.lineage
  local t = {
    id = id, state = SCHEDULED, revision = control.sequence, incarnation = control.sequence,
    promotion = 0, attempt = 0, run = 1, due_ms = due_ms,
  }
  redis.call('HSET', K.payloads, id,
    struct.pack('>BI8I8I8', FORMAT, t.incarnation, since_ms, due_ms) .. tail)
  redis.call('ZADD', K.tasks, string.format('%.0f', due_ms), id)
  count('enqueued', 1)
  count('scheduled', 1)
  journal('enqueue', t, nil)
  return t
end

-- The tombstone goes at once, because the id gets another incarnation.
local function forget(id)
  redis.call('ZREM', K.finished, id)
  redis.call('HDEL', K.states, id)
end

local function bury(t)
  t.token = ''
  transition('purge', t, PURGED, now)
end

-- For scripts that walk an index: the task behind one of its entries, if it really is in
-- that state. An entry that somebody put or damaged by hand is taken out of the way, and
-- counted, so that it cannot wedge the shard:
--   nothing behind it, or a task in another state: the entry goes (stray);
--   a payload whose state cannot be read: the task is dead, and can be redriven;
--   a state whose payload cannot be read: the entry goes, the records stay (set aside).
local function examine(id, expected)
  local t = load(id)
  if t and t.cut_from == expected then
    bury(t)
    return nil
  end
  if t and t.state == expected then return t end
  if t == false then
    local payload = unpack_payload(redis.call('HGET', K.payloads, id))
    local state = redis.call('HGET', K.states, id)
    state = state and unpack_state(state)
    if payload and not state then
      t = {
        id = id, state = expected, incarnation = payload.incarnation, promotion = 0,
        attempt = 0, run = 1, due_ms = payload.due_ms, verdict = NONE, token = '',
        settled_token = '', digest = '', request_id = '', snoozes = 0, payload = payload,
        last_error = 'the state record could not be read',
      }
      transition('set_aside', t, DEAD, now)
      return nil
    end
    if state and state.state == expected then
      redis.call('ZREM', INDEX[expected], id)
      count(NAME[expected], -1)
      count('set_aside', 1)
      return nil
    end
  end
  redis.call('ZREM', INDEX[expected], id)
  count('stray', 1)
  return nil
end

-- Retries --------------------------------------------------------------------------------
-- min(max_backoff, initial * multiplier^(attempt - 1)), and on top a random part of up to
-- jitter times that: never sooner than the first term.
local function backoff_ms(payload, attempt, random)
  if payload.initial_backoff_ms == 0 then return 0 end
  local base = payload.initial_backoff_ms * (payload.multiplier_milli / 1000) ^ (attempt - 1)
  base = math.min(base, payload.max_backoff_ms)
  return math.ceil(base + base * payload.jitter_milli / 1000 * random)
end

-- Ends an attempt without success. delay_ms < 0: by the retry policy.
local function end_attempt(op, t, delay_ms, dead, random)
  if dead or t.attempt >= t.payload.max_attempts then
    t.token = ''
    transition(op, t, DEAD, now)
    return
  end
  if delay_ms < 0 then delay_ms = backoff_ms(t.payload, t.attempt, random) end
  t.due_ms = now + delay_ms
  transition(op, t, SCHEDULED, t.due_ms)
end

-- Request records: what a request_id did, so that a repeat gets the same answer.
-- The length goes first: request_id and id may hold any separator.
local function request_field(kind, request_id, id)
  return kind .. ':' .. #request_id .. ':' .. request_id .. ':' .. (id or '')
end

local function recall(kind, request_id, id)
  if request_id == '' then return nil end
  return redis.call('HGET', K.requests, request_field(kind, request_id, id)) or nil
end

-- A record of so many numbers; nil when there is none, false when it cannot be read.
local function recall_numbers(kind, request_id, id, how_many)
  local record = recall(kind, request_id, id)
  if not record then return nil end
  if #record ~= 8 * how_many then return false end
  local numbers = { struct.unpack('>' .. ('I8'):rep(how_many), record) }
  for i = 1, how_many do
    if numbers[i] > MAX_MS then return false end
  end
  return numbers
end

local function remember(kind, request_id, id, value, until_ms)
  if request_id == '' then return end
  local field = request_field(kind, request_id, id)
  local keep_ms = CALL.not_after_ms > 0 and CALL.not_after_ms or now
  keep_ms = math.max(keep_ms + 2 * CALL.max_skew_ms, until_ms or 0)
  redis.call('HSET', K.requests, field, value)
  redis.call('ZADD', K.request_expiry, string.format('%.0f', keep_ms), field)
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

-- Hints: lossy by contract. "due" tells schedulers of an earlier wake-up, "ready" tells
-- waiting Retrieves how many tasks there are.
local function hint(kind, value)
  redis.call('PUBLISH', 'ddq:hints',
    string.format('%s %s %.0f', kind, K.control:match('{.*}'), value))
end

local function hint_if_earlier(before_ms, after_ms)
  if after_ms and (not before_ms or after_ms < before_ms) then hint('due', after_ms) end
end

-- Where a walk through an index goes on behind (score, id), though the id may have moved.
local function rank_behind(key, score, id)
  if score == '' then return 0 end
  local rank = redis.call('ZRANK', key, id)
  local at = rank and redis.call('ZSCORE', key, id)
  if rank and tonumber(at) == tonumber(score) then return rank + 1 end
  return redis.call('ZCOUNT', key, '-inf', '(' .. score)
end

-- Leadership is checked where it matters: in the script that moves tasks.
local function is_leader(nonce, epoch)
  return control.nonce == nonce and control.epoch == epoch
end

-- What a scheduler needs to know to sleep: ms of the next due time, lease expiry and
-- collection; -1 for none.
local function outlook()
  local due = control.paused == 0 and first_score(K.tasks) or -1
  local expiry = first_score(K.leases) or -1
  local collect = -1
  local finished, request = first_score(K.finished), first_score(K.request_expiry)
  if finished then collect = finished + control.retention_ms end
  if request and (collect < 0 or request < collect) then collect = request end
  return due, expiry, collect
end
