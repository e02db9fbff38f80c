-- Writes one document atomically.
--
-- KEYS[1]  key of the document
-- ARGV[1]  'put' to replace the document, 'set' to set some fields, or 'delete'
-- ARGV[2]  condition on the current document: '*' none, '' it must not exist, or its content hash
-- ARGV[3]  put: expiry in Unix milliseconds, or '' for none
-- ARGV[4]  put and set: alternating names and values, from here on
--
-- Returns {1, 1 or 0: whether the document existed}, or if the condition fails {0, content hash of
-- the current document or ''}.
local key, operation, expected = KEYS[1], ARGV[1], ARGV[2]

local function digest(name, value)
  return tonumber(string.sub(redis.sha1hex(#name .. ':' .. name .. value), 1, 13), 16)
end

local function content_hash()
  local fields = redis.call('HGETALL', key)
  local sum = 0
  for i = 1, #fields, 2 do
    sum = (sum + digest(fields[i], fields[i + 1])) % 4503599627370496
  end
  local expiry = redis.call('PEXPIRETIME', key)
  if expiry >= 0 then
    sum = (sum + digest('', string.format('%.0f', expiry))) % 4503599627370496
  end
  return string.format('%.0f', sum)
end

local names = redis.call('HKEYS', key)
local existed = #names > 0
if expected ~= '*' then
  local found = existed and content_hash() or ''
  if found ~= expected then
    return {0, found}
  end
end

if operation == 'delete' then
  return {1, redis.call('DEL', key)}
end
if operation == 'put' and existed then
  local kept = {}
  for i = 4, #ARGV, 2 do
    kept[ARGV[i]] = true
  end
  for _, name in ipairs(names) do
    if not kept[name] then
      -- DEL and HSET index the document once; HDEL and HSET would index it twice.
      redis.call('DEL', key)
      break
    end
  end
end
redis.call('HSET', key, unpack(ARGV, 4))
if operation == 'put' then
  if ARGV[3] ~= '' then
    redis.call('PEXPIREAT', key, ARGV[3])
  elseif existed then
    redis.call('PERSIST', key)
  end
end
return {1, existed and 1 or 0}
