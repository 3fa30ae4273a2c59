-- Version 1 of a spool.

-- Each row is a group: events that were committed together, and are not all settled.
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,          -- given by the owner, always larger than before: the order of redelivery
    events INTEGER NOT NULL,         -- the number of events in the body
    body_bytes INTEGER NOT NULL,     -- size of the body, as it goes to the sink
    stored_bytes INTEGER NOT NULL,   -- size of the body, as it is stored here
    attempts INTEGER NOT NULL,       -- deliveries that did not settle these events
    received_at_ms INTEGER NOT NULL, -- when the group was first committed
    strikes INTEGER NOT NULL,        -- deliveries that ended without an answer for these events alone
    attempted_at_ms TEXT NOT NULL,   -- times of delivery: a JSON array, the first one and the newest ones
    index_name TEXT NOT NULL,        -- the index of all of its events
    refusals INTEGER NOT NULL,       -- refusals of these events while the sink took others of their index
    refused_status INTEGER NOT NULL, -- the HTTP status of their last refusal, 0 if there was none
    codec INTEGER NOT NULL,          -- 0: plain, 1: zstd
    body BLOB NOT NULL               -- the entries; the last column, so that no other lies on its overflow pages
) STRICT;

-- By this index redelivery chooses groups, before it reads their bodies.
CREATE INDEX groups_waiting ON groups (index_name, refused_status, id, events, body_bytes);

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
    index_name TEXT NOT NULL,
    log_id TEXT NOT NULL,
    error_type TEXT NOT NULL,        -- the sink's name for the error
    reason TEXT NOT NULL,            -- the sink's explanation
    attempts INTEGER NOT NULL,
    attempted_at_ms TEXT NOT NULL,   -- as in `groups`
    died_at_ms INTEGER NOT NULL,
    replay INTEGER NOT NULL DEFAULT 0, -- 1: a command asked the owner to move it back to `groups`
    entry BLOB NOT NULL,             -- the original bytes
    UNIQUE (index_name, log_id)
) STRICT;

CREATE INDEX dead_letters_died_at ON dead_letters (died_at_ms);
CREATE INDEX dead_letters_replay ON dead_letters (replay) WHERE replay = 1;

-- Requests of commands to the owner. Only the owner moves events.
CREATE TABLE requests (
    name TEXT PRIMARY KEY,
    asked_at_ms INTEGER NOT NULL
) STRICT;

-- One row. The triggers keep it right, whoever changes the tables.
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    groups INTEGER NOT NULL,
    events INTEGER NOT NULL,         -- in these groups
    stored_bytes INTEGER NOT NULL,   -- of their bodies
    dead_letters INTEGER NOT NULL,
    dead_bytes INTEGER NOT NULL      -- of their entries and reasons
) STRICT;

INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0);

CREATE TRIGGER groups_inserted AFTER INSERT ON groups BEGIN
    UPDATE totals
    SET groups = groups + 1, events = events + NEW.events, stored_bytes = stored_bytes + NEW.stored_bytes;
END;

CREATE TRIGGER groups_deleted AFTER DELETE ON groups BEGIN
    UPDATE totals
    SET groups = groups - 1, events = events - OLD.events, stored_bytes = stored_bytes - OLD.stored_bytes;
END;

CREATE TRIGGER groups_shrunk AFTER UPDATE OF events, stored_bytes ON groups BEGIN
    UPDATE totals
    SET events = events - OLD.events + NEW.events, stored_bytes = stored_bytes - OLD.stored_bytes + NEW.stored_bytes;
END;

CREATE TRIGGER dead_letters_inserted AFTER INSERT ON dead_letters BEGIN
    UPDATE totals
    SET dead_letters = dead_letters + 1,
        dead_bytes = dead_bytes + length(NEW.entry) + length(CAST(NEW.reason AS BLOB));
END;

CREATE TRIGGER dead_letters_deleted AFTER DELETE ON dead_letters BEGIN
    UPDATE totals
    SET dead_letters = dead_letters - 1,
        dead_bytes = dead_bytes - length(OLD.entry) - length(CAST(OLD.reason AS BLOB));
END;

CREATE TRIGGER dead_letters_replaced AFTER UPDATE OF entry, reason ON dead_letters BEGIN
    UPDATE totals
    SET dead_bytes = dead_bytes - length(OLD.entry) - length(CAST(OLD.reason AS BLOB))
        + length(NEW.entry) + length(CAST(NEW.reason AS BLOB));
END;

-- Incidents of the file itself.
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

-- The wall clock over the last day of running time. A dead letter's age is counted up to its lowest value.
CREATE TABLE clock_samples (
    bucket INTEGER PRIMARY KEY,      -- ten minutes of running time, counted over all owners
    ran_ms INTEGER NOT NULL,         -- running time at the last sample
    lowest_ms INTEGER NOT NULL       -- the lowest value of the clock, by samples and by deaths of letters
) STRICT;

-- A letter may die between two samples while the clock is behind. Without these triggers it would be old as soon as the
-- clock is right.
CREATE TRIGGER dead_letters_died AFTER INSERT ON dead_letters BEGIN
    UPDATE clock_samples SET lowest_ms = min(lowest_ms, NEW.died_at_ms)
    WHERE bucket = (SELECT max(bucket) FROM clock_samples);
END;

CREATE TRIGGER dead_letters_died_again AFTER UPDATE OF died_at_ms ON dead_letters BEGIN
    UPDATE clock_samples SET lowest_ms = min(lowest_ms, NEW.died_at_ms)
    WHERE bucket = (SELECT max(bucket) FROM clock_samples);
END;
