-- Makes the requests of the load: a realistic event of about 300 bytes with a log_id of its own.
-- BENCH_CLIENTS names a file with one client a line: token, device-uuid, app-version, os-version, separated by tabs.

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

local M = {}
local heads, nonce
local count, requests = 0, 0

-- wrk has an interpreter per thread and a process per run: 44 random bits tell their ids apart, the counter the rest.
local function random_hex(bytes)
  local source = assert(io.open("/dev/urandom", "rb"))
  local hex = source:read(bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  source:close()
  return hex
end

local function read_heads(path)
  local result = {}
  for line in io.lines(os.getenv("BENCH_CLIENTS")) do
    local token, device, app, system = line:match("^(.-)\t(.-)\t(.-)\t(.-)$")
    result[#result + 1] = concat({
      "POST ", path, " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ", token,
      "\r\ndevice-uuid: ", device, "\r\napp-version: ", app, "\r\nos-version: ", system,
      "\r\nContent-Type: application/json\r\nContent-Length: ",
    })
  end
  return result
end

-- The layout of UUIDv7: the time leads, so ids come about in order, as they do from real clients.
local function log_id()
  ffi.C.clock_gettime(CLOCK_REALTIME, now)
  local ms = tonumber(now.seconds) * 1000 + math.floor(tonumber(now.nanoseconds) / 1000000)
  local high = math.floor(ms / 65536)
  return tohex(high) .. "-" .. tohex(ms - high * 65536, 4) .. nonce .. tohex(bswap(count))
end

function M.init(path)
  heads = read_heads(path)
  local random = random_hex(6)
  nonce = concat({ "-7", random:sub(1, 3), "-a", random:sub(4, 6), "-", random:sub(7, 10) })
end

function M.event()
  count = count + 1
  local n = count
  return concat({
    '{"log_id":"', log_id(),
    '","page":"', pages[n % #pages + 1],
    '","event":"', kinds[n % #kinds + 1],
    '","label":"', labels[n % #labels + 1],
    '","target":"product-', 1000000 + n % 99991,
    '","section":"', sections[n % #sections + 1],
    '","param":{"product_id":', 1000000 + n % 99991,
    ',"price":', 1990 + n % 401 * 10,
    ',"currency":"KRW","position":', n % 40,
    ',"referrer":"', referrers[n % #referrers + 1],
    '","logged_in":true,"query":"running shoes"}}',
  })
end

function M.request(body)
  requests = requests + 1
  -- wrk asks for one request as a trial, before it connects; the second is the first to be sent.
  if requests == 2 then ffi.C.usleep(PAUSE_US) end
  return concat({ heads[count % #heads + 1], #body, "\r\n\r\n", body })
end

function M.report(summary, latency)
  local e = summary.errors
  print(("RESULT {\"requests\":%d,\"duration_us\":%d,\"p50_us\":%d,\"p99_us\":%d,\"refused\":%d,\"socket_errors\":%d}")
    :format(summary.requests, summary.duration - PAUSE_US, latency:percentile(50), latency:percentile(99),
      e.status, e.connect + e.read + e.write + e.timeout))
end

return M
