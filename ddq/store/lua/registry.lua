-- registry: reads or changes the table of topics, ddq:topics: name -> uid, revision, document.
-- prelude: clock (it has one key of its own)
-- flags: allow-oom
-- keys: ddq:topics, and ddq:confirmed:{ddq:topics}, which is in the same slot: apart, because a
-- keys: 0.1 that reads the table takes every field of it but '#' for a topic
-- argv: action            'get', 'many', 'page', 'version', 'create', 'update', 'delete',
-- argv:                   'accept_rollback' or 'upgrade'
-- argv: name              of the topic; '' where there is no one topic
-- argv: random            8 bytes, for create, update and delete: the tail of the uid, and the tag of
-- argv:                   the version
-- argv: expected          revision, for update and delete; a recovery, for accept_rollback; records
-- argv:                   to look at, for page; a format, for upgrade and create
-- argv: document          JSON, for create and update; never read here. For page the cursor: '0' for
-- argv:                   the first page
-- argv: not_after_ms      0 for no bound
-- argv: process, acked, recovery  see the prelude
-- argv: names             for many: at most 1,000
-- returns: {status, record, {process's counter, recovery, format}}; record is the one that is there
-- returns:   now, '' for none; format: of new shards
-- returns:   OK           done; many: {status, {record or nil ...}, ...}; page: {status, {cursor, name,
-- returns:                record ...}, ...}; version: {status, {changes, tag, topics}, ...}
-- returns:   EXISTS       create: the name is taken
-- returns:   REVISION     update, delete: the topic is at another revision, or gone
-- returns:   EXPIRED      it came after not_after; nothing changed
-- returns:   ROLLBACK     the store has lost what it had confirmed to this process
-- returns:   MALFORMED    the key or the record cannot be read
local key, confirmed = KEYS[1], KEYS[2]
local action, name, random, expected, document = unpack(ARGV)
local not_after_ms = tonumber(ARGV[6] or 0)

for _, each in ipairs(KEYS) do
  local kind = redis.call('TYPE', each).ok
  if kind ~= 'none' and kind ~= 'hash' then
    return { 'MALFORMED', each .. ' is a ' .. kind .. ', not a hash' }
  end
end
local ordinal = tonumber(redis.call('HGET', key, '#') or 0)
if not ordinal or ordinal < 0 or ordinal > 9007199254740991 or ordinal ~= math.floor(ordinal) then
  return { 'MALFORMED', key .. ' field # is not a whole number' }
end
local record = redis.call('HGET', key, name) or ''
if record ~= '' and #record < 24 then
  return { 'MALFORMED', key .. ' field ' .. name .. ' is too short' }
end
local process, acked, known_recovery = ARGV[7] or '', tonumber(ARGV[8] or 0), tonumber(ARGV[9] or 0)
local known = redis.call('HMGET', confirmed, 'recovery', 'format')
local recovery, format = tonumber(known[1] or 0) or 0, tonumber(known[2] or 1) or 1
local process_count = 0
if process ~= '' then
  -- As in the prelude. A store that lost this table has lost every topic: none may be recreated unnoticed.
  local seen = redis.call('HGET', confirmed, 'p:' .. process)
  process_count = seen and tonumber(seen:match('^%d+')) or 0
  if acked > process_count and recovery <= known_recovery then
    return { 'ROLLBACK', string.format('process %s has had %.0f calls confirmed on %s, the store knows of %.0f',
      process, acked, key, process_count) }
  end
  if not seen then
    local cursor = (redis.call('HGET', confirmed, 'names_cursor') or '0'):match('^%d+$') or '0'
    local page = redis.call('HSCAN', confirmed, cursor, 'COUNT', 64)
    redis.call('HSET', confirmed, 'names_cursor', page[1])
    local fields = page[2]
    for i = 1, #fields, 2 do
      local used_ms = fields[i]:sub(1, 2) == 'p:' and tonumber(fields[i + 1]:match(' (%d+)$') or 0)
      if used_ms and used_ms < now_ms() - 7200000 then redis.call('HDEL', confirmed, fields[i]) end
    end
  end
  process_count = process_count + 1
  redis.call('HSET', confirmed, 'p:' .. process, string.format('%.0f %.0f', process_count, now_ms()))
end
local function reply(status, value) return { status, value, { process_count, recovery, format } } end

local revision = record ~= '' and struct.unpack('>I8', record, 17) or 0

-- Reads write too: see begin() in the prelude.
if action == 'get' or action == 'many' or action == 'page' or action == 'version' then
  redis.call('HSET', key, '#', ordinal)
end
if action == 'get' then return reply('OK', record) end
if action == 'many' then
  return reply('OK', redis.call('HMGET', key, unpack(ARGV, 10)))
end
if action == 'page' then
  local page = redis.call('HSCAN', key, document, 'COUNT', tonumber(expected))
  local entries = { page[1] }
  for _, entry in ipairs(page[2]) do entries[#entries + 1] = entry end
  return reply('OK', entries)
end
if action == 'version' then
  -- Two branches of a failover count the same changes; the tag tells one from the other.
  return reply('OK', {
    ordinal, redis.call('HGET', confirmed, 'version_tag') or '', redis.call('HLEN', key) - 1,
  })
end
if action == 'accept_rollback' then
  -- See accept_rollback.lua.
  recovery = math.max(recovery + 1, tonumber(expected))
  redis.call('HSET', confirmed, 'recovery', string.format('%.0f', recovery))
  return reply('OK', '')
end
if action == 'upgrade' then
  -- Never back: there may be shards of that form.
  format = math.max(format, tonumber(expected))
  redis.call('HSET', confirmed, 'format', format)
  return reply('OK', '')
end
-- '#' cannot be a topic's name. It numbers every change of the table, so that a uid is greater
-- than that of every earlier life, by which a shard can tell which of two callers is behind, and
-- no two lives of a name share a revision: else a deletion that stalled before its last step
-- would remove the topic that has the name by then.
redis.call('HSET', key, '#', ordinal + 1)
if not_after_ms > 0 and now_ms() > not_after_ms then return reply('EXPIRED', record) end
if action == 'create' then
  if record ~= '' then return reply('EXISTS', record) end
  -- A store that never had a topic has no process of an older version.
  if ordinal == 0 and not known[2] then
    format = tonumber(expected)
    redis.call('HSET', confirmed, 'format', format)
  end
  record = struct.pack('>I8', ordinal + 1) .. random
    .. struct.pack('>I8', ordinal + 1) .. document
  redis.call('HSET', key, name, record)
  redis.call('HSET', confirmed, 'version_tag', random)
  redis.call('PUBLISH', 'ddq:hints', 'topic ' .. name .. ' 0')
  return reply('OK', record)
end

if revision ~= tonumber(expected) or record == '' then return reply('REVISION', record) end
redis.call('HSET', confirmed, 'version_tag', random)
if action == 'update' then
  record = record:sub(1, 16) .. struct.pack('>I8', ordinal + 1) .. document
  redis.call('HSET', key, name, record)
  return reply('OK', record)
end
redis.call('HDEL', key, name)
return reply('OK', '')
