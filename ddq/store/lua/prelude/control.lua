-- What every script of a shard begins and ends with: its keys, its call, its checks, its reply.
-- A script that fails midway is not rolled back, so a script first calls begin(), then loads and
-- checks every member, and only then writes (prelude/changes.lua).

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
  uid = ARGV[1],                    -- of the topic: a recreated topic has a greater one
  settings_revision = tonumber(ARGV[2]), -- that the caller knows
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

local FORMAT = 2                  -- the latest form of a shard's keys and records
local COMPACT = 2                 -- the first with compact payload records and packed ids
local MAX_MS = 9007199254740991   -- 2^53 - 1: the largest integer that a Lua number holds exactly

local SCHEDULED, READY, LEASED, SUCCEEDED, DEAD, CANCELLED, PURGED = 1, 2, 3, 4, 5, 6, 7
local NAME = { 'scheduled', 'ready', 'leased', 'succeeded', 'dead', 'cancelled', 'purged' }
local INDEX = { K.tasks, K.ready, K.leases, K.finished, K.dead, K.finished, K.finished }
-- These hold a payload and count towards max_tasks and max_bytes; leaving them lowers their counters.
local HELD = { true, true, true, false, true, false, false }

-- What became of the token that was settled last.
local NONE, ACKED, RETRIED, DEAD_LETTERED, RELEASED, SNOOZED = 0, 1, 2, 3, 4, 5

local COUNTERS = {
  'enqueued', 'scheduled', 'ready', 'leased', 'succeeded', 'dead', 'cancelled', 'purged',
  'set_aside', 'stray',
}
-- Fields of control that are numbers; one that is absent is 0.
local NUMBERS = {
  'format', 'shards', 'settings_revision', 'paused', 'deleting', 'max_tasks', 'retention_ms',
  'journal', 'journal_max', 'sequence', 'mark_ms', 'purge_cut', 'epoch', 'leader_until_ms',
  'erased', 'recovery', 'max_bytes',
  'bytes_from',             -- the sequence when max_bytes was set: later tasks count
  'n:bytes',                -- payloads and headers of those that are held; only with max_bytes
}

local control = {}        -- what control holds, and what finish() writes back
local counts = {}         -- counter -> change made by this script
local now = 0             -- store time of this call, ms; never behind an earlier one

local process_count = 0   -- of the caller's process, this call included
local refusal_writes = false

local function refuse(status, detail)
  -- A refusal is an answer too, and WAIT has to cover it: a demoted master must not be trusted
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

-- A time as a score's text. The tasks of a batch often have the same one.
local text_ms, text
local function as_score(ms)
  if ms ~= text_ms then text_ms, text = ms, string.format('%.0f', ms) end
  return text
end

local function first_score(key)
  local head = run('ZRANGE', key, 0, 0, 'WITHSCORES')
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

  local fields = { 'uid', 'lineage', 'nonce', 'policies', 'moving' }
  for _, name in ipairs(NUMBERS) do fields[#fields + 1] = name end
  for _, name in ipairs(COUNTERS) do fields[#fields + 1] = 'n:' .. name end
  local values = redis.call('HMGET', K.control, unpack(fields))
  for i, name in ipairs(fields) do
    local value = values[i]
    if i > 5 then
      local number = value == false and 0 or tonumber(value)
      if not number or number ~= math.floor(number) or number < 0 or number > MAX_MS then
        return refuse('MALFORMED', K.control .. ' field ' .. name .. ' is not a whole number')
      end
      value = number
    end
    control[name] = value
  end
  control.lineage = control.lineage or ''
  control.policies = control.policies or ''

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

-- Writes what was changed, and control, and builds the reply. The last thing a script does.
local function finish(...)
  write_changes()
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
