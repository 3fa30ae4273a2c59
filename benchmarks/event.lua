-- Makes the requests of the load: realistic events of about 300 bytes, each with a log_id of its own.
-- BENCH_CLIENTS names a file with one client a line: token, device-uuid, app-version, os-version, separated by tabs.
-- BENCH_EVENTS is the number of events in a request.

local ffi = require("ffi")
local bit = require("bit")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_timespec;
  int clock_gettime(int clock, bench_timespec *now);
  int usleep(unsigned int microseconds);
]]

local CLOCK_REALTIME = 0
-- Before its first request wrk has opened all connections. The server gets time to accept them while it is idle: libuv
-- accepts one connection in each turn of the event loop, so on a busy server the last ones would wait for seconds.
local PAUSE_US = tonumber(os.getenv("BENCH_PAUSE_US"))
local now = ffi.new("bench_timespec")
local concat, tohex, bswap = table.concat, bit.tohex, bit.bswap

local pages = { "home", "search", "product", "cart", "checkout", "my-page", "order-history" }
local kinds = { "view", "click", "scroll", "impression", "submit" }
local labels = { "Add to basket", "Buy now", "See all reviews", "바로구매", "Apply coupon", "Share with a friend" }
local sections = { "top-banner", "recommendations", "recently-viewed", "footer", "best-sellers" }
local referrers = { "push", "search-engine", "newsletter", "direct" }

local M = { SIZE = tonumber(os.getenv("BENCH_EVENTS")) }
local clients, heads, nonce
local count, requests = 0, 0

-- wrk has an interpreter per thread and a process per run: 44 random bits tell their ids apart, the counter the rest.
local function random_hex(bytes)
  local source = assert(io.open("/dev/urandom", "rb"))
  local hex = source:read(bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  source:close()
  return hex
end

local function read_clients()
  local result = {}
  for line in io.lines(os.getenv("BENCH_CLIENTS")) do
    local token, device, app, system = line:match("^(.-)\t(.-)\t(.-)\t(.-)$")
    result[#result + 1] = { token = token, device = device, app = app, system = system }
  end
  return result
end

local function head(path, media_type, client)
  return concat({
    "POST ", path, " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ", client.token,
    "\r\ndevice-uuid: ", client.device, "\r\napp-version: ", client.app, "\r\nos-version: ", client.system,
    "\r\nContent-Type: ", media_type, "\r\nContent-Length: ",
  })
end

function M.init(path, media_type)
  clients, heads = read_clients(), {}
  for i, client in ipairs(clients) do heads[i] = head(path, media_type, client) end
  local random = random_hex(6)
  nonce = concat({ "-7", random:sub(1, 3), "-a", random:sub(4, 6), "-", random:sub(7, 10) })
end

function M.milliseconds()
  ffi.C.clock_gettime(CLOCK_REALTIME, now)
  return tonumber(now.seconds) * 1000 + math.floor(tonumber(now.nanoseconds) / 1000000)
end

-- The layout of UUIDv7: the time leads, so ids come about in order, as they do from real clients.
local function log_id()
  local ms = M.milliseconds()
  local high = math.floor(ms / 65536)
  return tohex(high) .. "-" .. tohex(ms - high * 65536, 4) .. nonce .. tohex(bswap(count))
end

-- The values of the next event: log_id, page, event, label, target, section, product, price, position, referrer.
function M.values()
  count = count + 1
  local n = count
  return log_id(), pages[n % #pages + 1], kinds[n % #kinds + 1], labels[n % #labels + 1],
    "product-" .. 1000000 + n % 99991, sections[n % #sections + 1], 1000000 + n % 99991, 1990 + n % 401 * 10, n % 40,
    referrers[n % #referrers + 1]
end

function M.event()
  local id, page, kind, label, target, section, product, price, position, referrer = M.values()
  return concat({
    '{"log_id":"', id,
    '","page":"', page,
    '","event":"', kind,
    '","label":"', label,
    '","target":"', target,
    '","section":"', section,
    '","param":{"product_id":', product,
    ',"price":', price,
    ',"currency":"KRW","position":', position,
    ',"referrer":"', referrer,
    '","logged_in":true,"query":"running shoes"}}',
  })
end

-- The client that sends the next request, and its number.
function M.client()
  local number = requests % #clients + 1
  return clients[number], number
end

function M.request(body)
  local start = heads[requests % #heads + 1]
  requests = requests + 1
  -- wrk asks for one request as a trial, before it connects; the second is the first to be sent.
  if requests == 2 then ffi.C.usleep(PAUSE_US) end
  return concat({ start, #body, "\r\n\r\n", body })
end

function M.report(summary, latency)
  local e = summary.errors
  print(("RESULT {\"requests\":%d,\"duration_us\":%d,\"p50_us\":%d,\"p99_us\":%d,\"refused\":%d,\"socket_errors\":%d}")
    :format(summary.requests, summary.duration - PAUSE_US, latency:percentile(50), latency:percentile(99),
      e.status, e.connect + e.read + e.write + e.timeout))
end

return M
