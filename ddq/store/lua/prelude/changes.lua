-- Reads and writes of records and indexes for many tasks at a time. What a script changes is kept here
-- and written at its end, one command per key: a command costs as much as all that it does for one task.
-- A script that fails before that has changed nothing. Once it writes, nothing can fail: begin() has
-- checked the type of each key, and a store without memory refuses a script before it begins.

local CHUNK = 1000       -- values of one command: Lua unpacks about 8,000
-- hash -> what its fields hold, as read or as they will be: false for nothing
local hashes = { [KEYS[5]] = {}, [KEYS[6]] = {}, [KEYS[9]] = {} }
local changed_hashes = {}  -- hash -> its changed fields in order, with repeats
local scores = {}          -- sorted set -> member -> its new score; false: it goes
local changed_sets = {}    -- sorted set -> its changed members in order, with repeats
local entries = {}         -- of the journal
local changed = false      -- whether there is something to write

local function get_field(key, field)
  local value = hashes[key][field]
  if value == nil then
    value = redis.call('HGET', key, field)
    hashes[key][field] = value
  end
  return value
end

-- value: false to remove the field.
local function set_field(key, field, value)
  hashes[key][field] = value
  local order = changed_hashes[key]
  if order then
    order[#order + 1] = field
  else
    changed_hashes[key], changed = { field }, true
  end
end

-- score: text of a number; false to remove the member.
local function set_score(key, member, score)
  local order = changed_sets[key]
  if order then
    order[#order + 1] = member
    scores[key][member] = score
  else
    changed_sets[key], scores[key], changed = { member }, { [member] = score }, true
  end
end

local function get_score(key, member)
  local score = scores[key] and scores[key][member]
  if score == nil then score = redis.call('ZSCORE', key, member) end
  return score
end

-- stream, then what XADD takes.
local function add_entry(...)
  entries[#entries + 1], changed = { ... }, true
end

local function write_values(command, key, values)
  local count = #values
  for from = 1, count, CHUNK do
    redis.call(command, key, unpack(values, from, math.min(from + CHUNK - 1, count)))
  end
end

-- Writes what changed of one key: `set` for what it gets, `remove` for what goes.
local function write_members(key, order, values, set, remove, score_first)
  local sets, gone, count = {}, {}, 0
  local member_at, value_at = 1, 2
  if score_first then member_at, value_at = 2, 1 end
  for i = 1, #order do
    local member = order[i]
    local value = values[member]
    if value then
      sets[count + member_at], sets[count + value_at] = member, value
      count = count + 2
    else
      gone[#gone + 1] = member
    end
  end
  write_values(set, key, sets)
  write_values(remove, key, gone)
end

-- The journal goes first: an entry can be refused, where its last id was set by hand.
local function write_changes()
  if not changed then return end
  for _, entry in ipairs(entries) do redis.call('XADD', unpack(entry)) end
  for key, order in pairs(changed_hashes) do
    write_members(key, order, hashes[key], 'HSET', 'HDEL', false)
  end
  for key, order in pairs(changed_sets) do
    write_members(key, order, scores[key], 'ZADD', 'ZREM', true)
  end
  changed_hashes, scores, changed_sets, entries, changed = {}, {}, {}, {}, false
end

-- Any other command on an index, the requests or the journal: it sees what was changed so far.
local function run(command, key, ...)
  if changed then write_changes() end
  return redis.call(command, key, ...)
end
