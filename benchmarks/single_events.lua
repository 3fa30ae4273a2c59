-- One event a request. LUA_PATH must lead to event.lua; load.py sets it.
local event = require("event")

function init() event.init("/events", "application/json") end

function request() return event.request(event.event()) end

function done(summary, latency) event.report(summary, latency) end
