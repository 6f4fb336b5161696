-- Ids as keys hold them; see ddq/store/ids.py: 2 and 16 bytes, or 1 and an id that begins with 1 or 2. Scripts are given packed ids. A shard of an earlier format
-- holds all ids as text. One that is being upgraded holds some UUIDs as text: wherever a script meets one
-- of these it gives it its new name, in all keys.

-- An id as clients know it.
local function id_text(id)
  local first = id:byte(1)
  if first == 2 and #id == 17 then
    return string.format('%08x-%04x-%04x-%04x-%04x%08x', struct.unpack('>I4I2I2I2I2I4', id, 2))
  end
  return first == 1 and id:sub(2) or id
end

-- Of an id as clients know it.
local function id_bytes(id)
  return #id == 17 and id:byte(1) == 2 and 36 or #id
end

-- The name that a UUID in text has from format 2 on; every other id as it is.
local function packed_id(id)
  if #id ~= 36 or control.format < COMPACT or id:find('%u') then return id end
  local a, b, c, d, e = id:match('^(%x+)%-(%x+)%-(%x+)%-(%x+)%-(%x+)$')
  if not a or #a ~= 8 or #b ~= 4 or #c ~= 4 or #d ~= 4 then return id end
  return struct.pack('>BI4I2I2I2I2I4', 2, tonumber(a, 16), tonumber(b, 16), tonumber(c, 16),
    tonumber(d, 16), tonumber(e:sub(1, 4), 16), tonumber(e:sub(5), 16))
end

-- The name of an id that a caller gives, in this shard.
local function name_of(id) return control.format < COMPACT and id_text(id) or id end

-- What renames. These are made when they are needed, which is seldom, and not whenever a script begins.
local function old_names()
  local function rename_member(key, from, to)
    local score = from ~= to and get_score(key, from)
    if not score then return end
    set_score(key, from, false)
    set_score(key, to, score)
  end

  local function rename_field(key, from, to)
    local value = from ~= to and get_field(key, from)
    if not value then return end
    set_field(key, from, false)
    set_field(key, to, value)
  end

  -- Of these ids, which have been read: those that have no record may have one by their old name.
  -- Returns the bytes of what was read, of all and of the largest.
  local function rename_records(ids)
    local names, texts = {}, {}
    for _, id in ipairs(ids) do
      local text = id_text(id)
      if text ~= id and not hashes[K.payloads][id] and not hashes[K.states][id] then
        names[#names + 1], texts[#texts + 1] = id, text
      end
    end
    local total, largest = 0, 0
    if #names == 0 then return total, largest end
    for _, key in ipairs({ K.payloads, K.states }) do
      local values = redis.call('HMGET', key, unpack(texts))
      for i, text in ipairs(texts) do
        if hashes[key][text] == nil then hashes[key][text] = values[i] end
      end
    end
    for i, text in ipairs(texts) do
      local payload, state = hashes[K.payloads][text], hashes[K.states][text]
      local bytes = (payload and #payload or 0) + (state and #state or 0)
      total, largest = total + bytes, math.max(largest, bytes)
      if bytes > 0 then
        rename_field(K.payloads, text, names[i])
        rename_field(K.states, text, names[i])
        for _, key in ipairs({ K.tasks, K.ready, K.leases, K.dead, K.finished }) do
          rename_member(key, text, names[i])
        end
      end
    end
    return total, largest
  end

  return {
    rename_member = rename_member, rename_field = rename_field, rename_records = rename_records,
  }
end

-- Members of an index, each by its new name. list: from a command that read the index.
local function renamed(key, list, width)
  if control.moving then
    for at = 1, #list, width do
      local name = packed_id(list[at])
      old_names().rename_member(key, list[at], name)
      list[at] = name
    end
  end
  return list
end
