-- One event a request. LUA_PATH must lead to event.lua; run.py sets it.
local event = require("event")

function init() event.init("/events") end

function request() return event.request(event.event()) end

function done(summary, latency) event.report(summary, latency) end
