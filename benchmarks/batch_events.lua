-- Many events a request. LUA_PATH must lead to event.lua; load.py sets it.
local event = require("event")

function init() event.init("/events/batch", "application/json") end

function request()
  local events = {}
  for i = 1, event.SIZE do events[i] = event.event() end
  return event.request("[" .. table.concat(events, ",") .. "]")
end

function done(summary, latency) event.report(summary, latency) end
