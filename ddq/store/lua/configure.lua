-- configure: brings the topic's settings to a shard; the first call makes the shard. Settings
-- only move forward: a process that is behind cannot put old ones back.
-- flags: allow-oom
-- argv: paused            '0' or '1'
-- argv: deleting          '0' or '1'
-- argv: max_tasks         of this shard; 0: no bound
-- argv: retention_ms      of tombstones
-- argv: journal           '0' or '1'
-- argv: journal_max       entries
-- argv: format            of a shard that this call makes; another one keeps its own
-- argv: policy            the topic's retry policy, packed (records.py): its tasks refer to it by number
-- argv: max_bytes         of this shard; 0: no bound
-- returns: {status}
-- returns:   OK           the shard has these settings
-- returns:   NEWER        it has later ones already, or was erased: the caller is behind
-- returns:   OTHER_TOPIC  an earlier life of this name was never erased; nothing changed
local refusal = begin({ any_topic = true, while_deleting = true })
if refusal then return refusal end

-- An erased shard remembers whose it was: else a process that read the registry before the
-- topic was deleted could bring it back, and take tasks that no scheduler looks for.
if control.uid and control.uid ~= CALL.uid then
  -- The ordinals, not the strings: those compare by the server's locale.
  if #control.uid ~= 16 then return refuse('MALFORMED', K.control .. ' field uid') end
  if struct.unpack('>I8', control.uid) > struct.unpack('>I8', CALL.uid) then return finish({ 'NEWER' }) end
  if control.erased == 0 then return finish({ 'OTHER_TOPIC' }) end
elseif control.erased == 1 or control.settings_revision > CALL.settings_revision then
  return finish({ 'NEWER' })
end
local resumed = control.paused == 1 and ARGV[ARGS + 1] == '0'
local format = math.max(1, control.format)
if not control.uid or control.erased == 1 then format = math.max(format, tonumber(ARGV[ARGS + 7])) end
control.format = format
redis.call('HSET', K.control, 'format', format, 'uid', CALL.uid, 'shards', CALL.shards,
  'settings_revision', CALL.settings_revision, 'paused', ARGV[ARGS + 1],
  'deleting', ARGV[ARGS + 2], 'max_tasks', ARGV[ARGS + 3], 'retention_ms', ARGV[ARGS + 4],
  'journal', ARGV[ARGS + 5], 'journal_max', ARGV[ARGS + 6], 'erased', 0)
keep_policy(ARGV[ARGS + 8])
local max_bytes = tonumber(ARGV[ARGS + 9])
if max_bytes > 0 and control.max_bytes == 0 then
  -- Those that are held now were not counted, and their ends are not either.
  redis.call('HSET', K.control, 'bytes_from', control.sequence, 'n:bytes', 0)
end
if max_bytes ~= control.max_bytes then redis.call('HSET', K.control, 'max_bytes', ARGV[ARGS + 9]) end
if resumed then
  hint('due', first_score(K.tasks) or now)
  hint('ready', run('ZCARD', K.ready))
end
return finish({ 'OK' })
