-- One write of one document, wholly or not at all.
--
-- KEYS[1]  key of the document
-- ARGV[1]  'put' in place of whatever stands there, 'set' some fields, or 'delete'
-- ARGV[2]  what must stand there: '*' anything, '' nothing, or the number of its content
-- ARGV[3]  put: when it ends in Unix milliseconds, '' for never
-- ARGV[4]  put and set: names and values in turn, from here on
--
-- Replies {1, 1 or 0: whether a document stood there}, or {0, number of what stood there or ''}.
local key, verb, expected = KEYS[1], ARGV[1], ARGV[2]

local function digest(name, value)
  return tonumber(string.sub(redis.sha1hex(#name .. ':' .. name .. value), 1, 13), 16)
end

local function content()
  local fields = redis.call('HGETALL', key)
  local sum = 0
  for i = 1, #fields, 2 do
    sum = (sum + digest(fields[i], fields[i + 1])) % 4503599627370496
  end
  local left = redis.call('PEXPIRETIME', key)
  if left >= 0 then
    sum = (sum + digest('', string.format('%.0f', left))) % 4503599627370496
  end
  return string.format('%.0f', sum)
end

local names = redis.call('HKEYS', key)
local stood = #names > 0
if expected ~= '*' then
  local found = stood and content() or ''
  if found ~= expected then
    return {0, found}
  end
end

if verb == 'delete' then
  return {1, redis.call('DEL', key)}
end
if verb == 'put' and stood then
  local kept = {}
  for i = 4, #ARGV, 2 do
    kept[ARGV[i]] = true
  end
  for _, name in ipairs(names) do
    if not kept[name] then
      -- Indexed anew once, where HDEL and HSET would index it twice.
      redis.call('DEL', key)
      break
    end
  end
end
redis.call('HSET', key, unpack(ARGV, 4))
if verb == 'put' then
  if ARGV[3] ~= '' then
    redis.call('PEXPIREAT', key, ARGV[3])
  elseif stood then
    redis.call('PERSIST', key)
  end
end
return {1, stood and 1 or 0}
