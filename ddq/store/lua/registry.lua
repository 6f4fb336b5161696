-- registry: reads or changes the table of topics, ddq:topics: name -> uid, revision, document.
-- prelude: clock (it has one key of its own)
-- flags: allow-oom
-- keys: ddq:topics
-- argv: action            'get', 'all', 'create', 'update' or 'delete'
-- argv: name
-- argv: random            8 bytes, for create: the tail of the uid
-- argv: expected          revision, for update and delete
-- argv: document          JSON, for create and update; never read here
-- argv: not_after_ms      0 for no bound
-- returns: {status, record}; record is the one that is there now, '' for none
-- returns:   OK           done; for 'all', {status, {name, record ...}}
-- returns:   EXISTS       create: the name is taken
-- returns:   REVISION     update, delete: the topic is at another revision, or gone
-- returns:   EXPIRED      it came after not_after; nothing changed
-- returns:   MALFORMED    the key or the record cannot be read
local key = KEYS[1]
local action, name, random, expected, document = unpack(ARGV)
local not_after_ms = tonumber(ARGV[6] or 0)

local kind = redis.call('TYPE', key).ok
if kind ~= 'none' and kind ~= 'hash' then
  return { 'MALFORMED', key .. ' is a ' .. kind .. ', not a hash' }
end
local ordinal = tonumber(redis.call('HGET', key, '#') or 0)
if not ordinal or ordinal < 0 or ordinal > 9007199254740991 or ordinal ~= math.floor(ordinal) then
  return { 'MALFORMED', key .. ' field # is not a whole number' }
end
local record = redis.call('HGET', key, name) or ''
if record ~= '' and #record < 24 then
  return { 'MALFORMED', key .. ' field ' .. name .. ' is too short' }
end
local revision = record ~= '' and struct.unpack('>I8', record, 17) or 0

-- Reads write too: see begin() in the prelude.
if action == 'get' or action == 'all' then
  redis.call('HSET', key, '#', ordinal)
  return { 'OK', action == 'get' and record or redis.call('HGETALL', key) }
end
-- '#' cannot be a topic's name. It numbers every change of the table, so that a uid is greater
-- than that of every earlier life, by which a shard can tell which of two callers is behind, and
-- no two lives of a name share a revision: else a deletion that stalled before its last step
-- would remove the topic that has the name by then.
redis.call('HSET', key, '#', ordinal + 1)
if not_after_ms > 0 and now_ms() > not_after_ms then return { 'EXPIRED', record } end
if action == 'create' then
  if record ~= '' then return { 'EXISTS', record } end
  record = struct.pack('>I8', ordinal + 1) .. random
    .. struct.pack('>I8', ordinal + 1) .. document
  redis.call('HSET', key, name, record)
  redis.call('PUBLISH', 'ddq:hints', 'topic ' .. name .. ' 0')
  return { 'OK', record }
end

if revision ~= tonumber(expected) or record == '' then return { 'REVISION', record } end
if action == 'update' then
  record = record:sub(1, 16) .. struct.pack('>I8', ordinal + 1) .. document
  redis.call('HSET', key, name, record)
  return { 'OK', record }
end
redis.call('HDEL', key, name)
return { 'OK', '' }
