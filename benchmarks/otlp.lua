-- The same events as log records of OpenTelemetry (OTLP over HTTP in protobuf, which is what its SDKs send).
-- The event is the body of its record. What all events of a request share is the resource, as in an SDK.
local event = require("event")
local char, concat, floor = string.char, table.concat, math.floor

local resources = {}

local function varint(n)
  if n < 128 then return char(n) end
  return char(n % 128 + 128) .. varint(floor(n / 128))
end

-- A field of wire type 2: a length, and so many bytes.
local function field(number, content) return char(number * 8 + 2) .. varint(#content) .. content end

local function text(value) return field(1, value) end -- AnyValue.string_value
local function integer(value) return char(24) .. varint(value) end -- AnyValue.int_value
local YES = char(16, 1) -- AnyValue.bool_value
local function pair(key, value) return field(1, key) .. field(2, value) end -- KeyValue
local function map(pairs) -- AnyValue.kvlist_value
  local values = {}
  for i, each in ipairs(pairs) do values[i] = field(1, each) end
  return field(6, concat(values))
end

local function fixed64(milliseconds)
  local bytes, rest = {}, milliseconds * 1000000LL
  for i = 1, 8 do
    bytes[i] = char(tonumber(rest % 256))
    rest = rest / 256
  end
  return concat(bytes)
end

local CURRENCY, LOGGED_IN = pair("currency", text("KRW")), pair("logged_in", YES)
local QUERY = pair("query", text("running shoes"))

local function record(time)
  local id, page, kind, label, target, section, product, price, position, referrer = event.values()
  local param = map({
    pair("product_id", integer(product)), pair("price", integer(price)), CURRENCY,
    pair("position", integer(position)), pair("referrer", text(referrer)), LOGGED_IN, QUERY,
  })
  local body = map({
    pair("page", text(page)), pair("event", text(kind)), pair("label", text(label)),
    pair("target", text(target)), pair("section", text(section)), pair("param", param),
  })
  return field(2, char(9) .. time .. field(5, body) .. field(6, pair("log_id", text(id))))
end

local function resource()
  local client, number = event.client()
  resources[number] = resources[number] or field(1, concat({
    field(1, pair("user_id", text("user-" .. number))), field(1, pair("device_uuid", text(client.device))),
    field(1, pair("app_version", text(client.app))), field(1, pair("os_version", text(client.system))),
  }))
  return resources[number]
end

function init() event.init("/v1/logs", "application/x-protobuf") end

function request()
  local time, records = fixed64(event.milliseconds()), {}
  for i = 1, event.SIZE do records[i] = record(time) end
  return event.request(field(1, resource() .. field(2, concat(records))))
end

function done(summary, latency) event.report(summary, latency) end
