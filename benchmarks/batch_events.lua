-- A hundred events a request. LUA_PATH must lead to event.lua; run.py sets it.
local event = require("event")
local SIZE = 100

function init() event.init("/events/batch") end

function request()
  local events = {}
  for i = 1, SIZE do events[i] = event.event() end
  return event.request("[" .. table.concat(events, ",") .. "]")
end

function done(summary, latency) event.report(summary, latency) end
