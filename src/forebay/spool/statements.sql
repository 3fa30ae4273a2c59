-- Each statement has a name; the line behind it says what it is for. A fragment stands in a statement as {its name}.

-- fragment: chosen
-- The dead letters that a command means: those that fit all that is given (`Choice`). `fold` takes no notice of case.
(:log_ids IS NULL OR log_id IN (SELECT value FROM json_each(:log_ids)))
AND (:error_type IS NULL OR error_type = :error_type)
AND (:reason IS NULL OR instr(fold(reason), fold(:reason)) > 0)
AND (:index_name IS NULL OR index_name = :index_name)
AND (:died_before_ms IS NULL OR died_at_ms < :died_before_ms)
AND (:died_after_ms IS NULL OR died_at_ms >= :died_after_ms)

-- fragment: meant
-- The groups that may hold pending events which a command means (`Burial`).
received_at_ms < :received_before_ms
AND (:index_name IS NULL OR index_name = :index_name)
AND (NOT :refused OR refused_status != 0)

-- name: insert_group
-- Keep a group of events that were received, or that remain of a group that never had a row.
INSERT INTO groups (
    id, events, body_bytes, stored_bytes, attempts, received_at_ms, codec, body, strikes, attempted_at_ms,
    index_name, refusals, refused_status
)
VALUES (
    :id, :events, :body_bytes, :stored_bytes, :attempts, :received_at_ms, :codec, :body, :strikes, :attempted_at_ms,
    :index_name, :refusals, :refused_status
)

-- name: delete_group
-- Let go of a group, every event of which is settled.
DELETE FROM groups WHERE id = ?

-- name: shrink_group
-- Keep only the events of a group that are not settled.
UPDATE groups
SET events = :events, body_bytes = :body_bytes, stored_bytes = :stored_bytes,
    attempts = :attempts, strikes = :strikes, attempted_at_ms = :attempted_at_ms, codec = :codec, body = :body,
    index_name = :index_name, refusals = :refusals, refused_status = :refused_status
WHERE id = :id

-- name: note_attempt
-- Remember a delivery that settled nothing of a group.
UPDATE groups
SET attempts = :attempts, strikes = :strikes, attempted_at_ms = :attempted_at_ms,
    refusals = :refusals, refused_status = :refused_status
WHERE id = :id

-- name: next_kind
-- Find the next pair of an index and a status of refusal that there are groups of.
SELECT * FROM (
    SELECT index_name, refused_status FROM groups WHERE index_name = :index_name AND refused_status > :refused_status
    ORDER BY refused_status LIMIT 1
)
UNION ALL
SELECT * FROM (
    SELECT index_name, refused_status FROM groups WHERE index_name > :index_name
    ORDER BY index_name, refused_status LIMIT 1
)
LIMIT 1

-- name: list_groups
-- Go through the groups of a kind behind one, oldest first, without their bodies.
SELECT id, events, body_bytes FROM groups WHERE index_name = ? AND refused_status = ? AND id > ? ORDER BY id

-- name: list_newest_groups
-- Go through the groups of a kind, newest first, without their bodies.
SELECT id, events, body_bytes FROM groups WHERE index_name = ? AND refused_status = ? ORDER BY id DESC

-- name: refused_pending
-- Count the pending events that were refused by the status of the last refusal, most first.
SELECT refused_status, sum(events) FROM groups WHERE refused_status != 0
GROUP BY refused_status ORDER BY sum(events) DESC, refused_status

-- name: load_group
-- Get a group with its body.
SELECT id, codec, body, stored_bytes, received_at_ms, index_name, attempts, attempted_at_ms, strikes, refusals,
    refused_status
FROM groups WHERE id = ?

-- name: totals
-- Find how much there is, without counting.
SELECT groups, events, stored_bytes, dead_letters, dead_bytes FROM totals

-- name: oldest_group
-- Find when the group was received that is redelivered first.
SELECT received_at_ms FROM groups ORDER BY id LIMIT 1

-- name: newest_group
-- Find when the newest group was received, and its number.
SELECT id, received_at_ms FROM groups ORDER BY id DESC LIMIT 1

-- name: events_until
-- Count the events that are left of the groups up to one.
SELECT coalesce(sum(events), 0) FROM groups WHERE id <= ?

-- name: last_group
-- Find where the numbering of groups goes on.
SELECT coalesce(max(id), 0) FROM groups

-- name: bury
-- Keep a dead letter; one that died before and died again keeps its place with the newest reason.
INSERT INTO dead_letters (index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, entry)
VALUES (:index_name, :log_id, :error_type, :reason, :attempts, :attempted_at_ms, :died_at_ms, :entry)
ON CONFLICT (index_name, log_id) DO UPDATE SET
    error_type = excluded.error_type, reason = excluded.reason,
    attempts = excluded.attempts, attempted_at_ms = excluded.attempted_at_ms, died_at_ms = excluded.died_at_ms,
    replay = 0, entry = excluded.entry

-- name: dead_history
-- Find how often and when an event was delivered before that died already.
SELECT attempts, attempted_at_ms FROM dead_letters WHERE index_name = :index_name AND log_id = :log_id

-- name: list_dead
-- Go through the dead letters, newest first.
SELECT id, index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, replay, entry
FROM dead_letters WHERE {chosen}
ORDER BY died_at_ms DESC, id DESC
LIMIT :limit

-- name: dead_types
-- Count the dead letters of each type that nobody has marked for replay, most first.
SELECT error_type, count(*) FROM dead_letters WHERE replay = 0 GROUP BY error_type ORDER BY count(*) DESC, error_type

-- name: marked_dead
-- Find dead letters to be replayed, of one index at a time.
SELECT id, entry FROM dead_letters
WHERE replay = 1 AND index_name = (SELECT index_name FROM dead_letters WHERE replay = 1 ORDER BY id LIMIT 1)
ORDER BY id LIMIT ?

-- name: delete_dead
-- Let go of a dead letter.
DELETE FROM dead_letters WHERE id = ?

-- name: list_expired
-- Find dead letters that are past their retention.
SELECT id, index_name, log_id, error_type, reason, died_at_ms, entry, attempts, attempted_at_ms
FROM dead_letters WHERE died_at_ms < ? AND replay = 0 ORDER BY died_at_ms LIMIT ?

-- name: expire_dead
-- Let go of a dead letter, unless it died once more, or is to be replayed, since it was found.
DELETE FROM dead_letters WHERE id = ? AND died_at_ms < ? AND replay = 0

-- name: ask
-- Leave a request for the owner.
INSERT INTO requests (name, asked_at_ms) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET asked_at_ms = excluded.asked_at_ms

-- name: take_requests
-- Take the requests that are done by whoever has seen them once; a burial stays until it is done.
DELETE FROM requests WHERE name NOT GLOB 'bury *' RETURNING name

-- name: list_burials
-- Find the burials that are not done.
SELECT name FROM requests WHERE name GLOB 'bury *' ORDER BY asked_at_ms, name

-- name: forget_request
-- Let go of a request.
DELETE FROM requests WHERE name = ?

-- name: next_group
-- Get the oldest group behind one, with its body.
SELECT id, codec, body, stored_bytes, received_at_ms, index_name, attempts, attempted_at_ms, strikes, refusals,
    refused_status
FROM groups WHERE id > ? ORDER BY id LIMIT 1

-- name: count_pending_where
-- Count the pending events that a command means, whatever their log_ids, and their bytes as dead letters.
SELECT index_name, sum(events), sum(body_bytes) FROM groups WHERE {meant} GROUP BY index_name

-- name: list_pending_where
-- Find the groups that may hold pending events which a command means.
SELECT id FROM groups WHERE {meant} ORDER BY id

-- name: count_dead_where
-- Count the dead letters that a command means, and how many of them are to be replayed.
SELECT count(*), coalesce(sum(replay), 0) FROM dead_letters
WHERE {chosen}

-- name: mark_replay_where
-- Ask the owner to move some of the dead letters that a command means.
UPDATE dead_letters SET replay = 1 WHERE id IN (
    SELECT id FROM dead_letters
    WHERE id > :after_id AND replay = 0
      AND {chosen}
    ORDER BY id LIMIT :limit
)
RETURNING id

-- name: purge_dead_where
-- Let go of some of the dead letters that a command means; those that are to be replayed are on their way back.
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters
    WHERE id > :after_id AND replay = 0
      AND {chosen}
    ORDER BY id LIMIT :limit
)
RETURNING id

-- name: correct_dead
-- Replace the entry of a dead letter, unless it was changed or marked since it was read.
UPDATE dead_letters SET entry = :entry, replay = :replay WHERE id = :id AND replay = 0 AND entry = :read_entry

-- name: incidents_since
-- Find what happened to the file itself since a time, newest first.
SELECT at_ms, kind, detail FROM incidents WHERE at_ms >= ? ORDER BY id DESC LIMIT ?

-- name: report
-- Remember what happened to the file itself.
INSERT INTO incidents (at_ms, kind, detail) VALUES (?, ?, ?)

-- name: adopt_letter
-- Keep a dead letter of another file; of two for one event the newest stays.
INSERT INTO dead_letters (index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, replay, entry)
VALUES (:index_name, :log_id, :error_type, :reason, :attempts, :attempted_at_ms, :died_at_ms, :replay, :entry)
ON CONFLICT (index_name, log_id) DO UPDATE SET
    error_type = excluded.error_type, reason = excluded.reason,
    attempts = excluded.attempts, attempted_at_ms = excluded.attempted_at_ms, died_at_ms = excluded.died_at_ms,
    replay = excluded.replay, entry = excluded.entry
WHERE excluded.died_at_ms >= dead_letters.died_at_ms

-- name: report_once
-- Remember what happened, unless that is known.
INSERT INTO incidents (at_ms, kind, detail)
SELECT :at_ms, :kind, :detail
WHERE NOT EXISTS (SELECT 1 FROM incidents WHERE kind = :kind AND detail = :detail)

-- name: running_time
-- Find how long owners have run, as far as it was noted.
SELECT coalesce(max(ran_ms), 0) FROM clock_samples

-- name: note_clock
-- Remember the running time, and the lowest that the clock showed in these ten minutes of it.
INSERT INTO clock_samples (bucket, ran_ms, lowest_ms) VALUES (:bucket, :ran_ms, :clock_ms)
ON CONFLICT (bucket) DO UPDATE SET
    ran_ms = excluded.ran_ms, lowest_ms = min(clock_samples.lowest_ms, excluded.lowest_ms)

-- name: forget_clock
-- Let go of the samples behind the newest one that is old enough.
DELETE FROM clock_samples WHERE bucket < (SELECT max(bucket) FROM clock_samples WHERE bucket <= ?)

-- name: lowest_clock
-- Find the lowest that the clock showed, and where the samples begin.
SELECT min(lowest_ms), min(bucket) FROM clock_samples
