-- Version 1. One row of `groups` is a group of events that were committed together and are not all settled.

CREATE TABLE groups (
    id INTEGER PRIMARY KEY,          -- given by the owner, growing: the order of redelivery
    events INTEGER NOT NULL,         -- how many events the body holds
    body_bytes INTEGER NOT NULL,     -- bytes of the body as it goes to the sink
    stored_bytes INTEGER NOT NULL,   -- bytes of the body as it is kept here
    attempts INTEGER NOT NULL,       -- deliveries that did not settle these events
    received_at_ms INTEGER NOT NULL, -- when the group was committed first
    codec INTEGER NOT NULL,          -- 0: as it is, 1: zstd
    body BLOB NOT NULL               -- the entries; last, so that counting reads no overflow page
) STRICT;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
    index_name TEXT NOT NULL,
    log_id TEXT NOT NULL,
    error_type TEXT NOT NULL,        -- the sink's own name for the error
    reason TEXT NOT NULL,            -- and its explanation
    attempts INTEGER NOT NULL,
    died_at_ms INTEGER NOT NULL,
    replay INTEGER NOT NULL DEFAULT 0, -- 1: the owner moves it back to `groups`
    entry BLOB NOT NULL,             -- the original bytes
    UNIQUE (index_name, log_id)
) STRICT;

CREATE INDEX dead_letters_died_at ON dead_letters (died_at_ms);
CREATE INDEX dead_letters_replay ON dead_letters (replay) WHERE replay = 1;

-- Requests of commands that run beside the owner, which alone moves events.
CREATE TABLE requests (
    name TEXT PRIMARY KEY,
    asked_at_ms INTEGER NOT NULL
) STRICT;
