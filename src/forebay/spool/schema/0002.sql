-- Version 2: what a delivery did to each group, totals that need no counting, and what `forebay doctor` tells.
-- Columns can only be added at the end, behind the body; only what reads the body reads them.

ALTER TABLE groups ADD COLUMN strikes INTEGER NOT NULL DEFAULT 0;
                                     -- deliveries that ended without an answer for these events alone
ALTER TABLE groups ADD COLUMN attempted_at_ms TEXT NOT NULL DEFAULT '[]';
                                     -- when they were delivered: a JSON array, the first time and the newest ones
ALTER TABLE groups ADD COLUMN index_name TEXT NOT NULL DEFAULT '';
                                     -- where in the sink all of its events belong
ALTER TABLE groups ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
                                     -- how often the sink refused these events while it took others of their index
ALTER TABLE groups ADD COLUMN refused_status INTEGER NOT NULL DEFAULT 0;
                                     -- the HTTP status of their last refusal, 0 if there was none
ALTER TABLE dead_letters ADD COLUMN attempted_at_ms TEXT NOT NULL DEFAULT '[]';

-- What redelivery needs to know of groups before it reads their bodies.
CREATE INDEX groups_waiting ON groups (index_name, refused_status, id, events, body_bytes);

-- One row, kept true by the triggers below, whoever changes the tables.
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    groups INTEGER NOT NULL,
    events INTEGER NOT NULL,         -- in these groups
    stored_bytes INTEGER NOT NULL,   -- bytes of their bodies as they are kept
    dead_letters INTEGER NOT NULL,
    dead_bytes INTEGER NOT NULL      -- bytes of their entries and reasons
) STRICT;

INSERT INTO totals
SELECT 1, g.groups, g.events, g.stored_bytes, d.dead_letters, d.dead_bytes
FROM (
    SELECT count(*) AS groups, coalesce(sum(events), 0) AS events, coalesce(sum(stored_bytes), 0) AS stored_bytes
    FROM groups
) AS g, (
    SELECT count(*) AS dead_letters, coalesce(sum(length(entry) + length(CAST(reason AS BLOB))), 0) AS dead_bytes
    FROM dead_letters
) AS d;

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

-- What happened to the file itself.
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

-- What the clock showed over the last day in which an owner ran: the age of a dead letter goes by the lowest of it.
CREATE TABLE clock_samples (
    bucket INTEGER PRIMARY KEY,      -- which ten minutes of running time, counted over all owners
    ran_ms INTEGER NOT NULL,         -- running time at the last look
    lowest_ms INTEGER NOT NULL       -- the lowest that the clock showed at a look, or when a letter died
) STRICT;

-- A letter that dies while the clock is behind, between two looks at it, is old as soon as it is put right.
CREATE TRIGGER dead_letters_died AFTER INSERT ON dead_letters BEGIN
    UPDATE clock_samples SET lowest_ms = min(lowest_ms, NEW.died_at_ms)
    WHERE bucket = (SELECT max(bucket) FROM clock_samples);
END;

CREATE TRIGGER dead_letters_died_again AFTER UPDATE OF died_at_ms ON dead_letters BEGIN
    UPDATE clock_samples SET lowest_ms = min(lowest_ms, NEW.died_at_ms)
    WHERE bucket = (SELECT max(bucket) FROM clock_samples);
END;
