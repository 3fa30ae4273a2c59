-- Each statement has a name; the line below the name describes it.

-- name: insert_group
-- Store a group: events that were received, or the rest of a group that never had a row.
INSERT INTO groups (
    id, events, body_bytes, stored_bytes, attempts, received_at_ms, codec, body, strikes, attempted_at_ms,
    index_name, refusals, refused_status
)
VALUES (
    :id, :events, :body_bytes, :stored_bytes, :attempts, :received_at_ms, :codec, :body, :strikes, :attempted_at_ms,
    :index_name, :refusals, :refused_status
)

-- name: shrink_group
-- Reduce a group to its unsettled events.
UPDATE groups
SET events = :events, body_bytes = :body_bytes, stored_bytes = :stored_bytes,
    attempts = :attempts, strikes = :strikes, attempted_at_ms = :attempted_at_ms, codec = :codec, body = :body,
    index_name = :index_name, refusals = :refusals, refused_status = :refused_status
WHERE id = :id

-- name: note_attempt
-- Store the history of a group after a delivery that settled none of its events.
UPDATE groups
SET attempts = :attempts, strikes = :strikes, attempted_at_ms = :attempted_at_ms,
    refusals = :refusals, refused_status = :refused_status
WHERE id = :id

-- name: delete_group
-- Delete a group; all of its events are settled.
DELETE FROM groups WHERE id = ?

-- name: bury
-- Store a dead letter. If the event died before, its letter keeps the row, and gets the newest reason.
INSERT INTO dead_letters (index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, entry)
VALUES (:index_name, :log_id, :error_type, :reason, :attempts, :attempted_at_ms, :died_at_ms, :entry)
ON CONFLICT (index_name, log_id) DO UPDATE SET
    error_type = excluded.error_type, reason = excluded.reason,
    attempts = excluded.attempts, attempted_at_ms = excluded.attempted_at_ms, died_at_ms = excluded.died_at_ms,
    replay = 0, entry = excluded.entry

-- name: dead_history
-- Read the history of a dead letter, for an event that dies again.
SELECT attempts, attempted_at_ms FROM dead_letters WHERE index_name = :index_name AND log_id = :log_id

-- name: next_kind
-- Find the next pair of an index and a status of refusal that occurs among the groups.
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
-- List the groups of a pair behind a given one, oldest first, without their bodies.
SELECT id, events, body_bytes FROM groups WHERE index_name = ? AND refused_status = ? AND id > ? ORDER BY id

-- name: list_newest_groups
-- List the groups of a pair, newest first, without their bodies.
SELECT id, events, body_bytes FROM groups WHERE index_name = ? AND refused_status = ? ORDER BY id DESC

-- name: load_group
-- Read a group with its body.
SELECT id, codec, body, stored_bytes, received_at_ms, index_name, attempts, attempted_at_ms, strikes, refusals,
    refused_status
FROM groups WHERE id = ?

-- name: totals
-- Read the totals, without counting.
SELECT groups, events, stored_bytes, dead_letters, dead_bytes FROM totals

-- name: last_group
-- Find the highest number of a group.
SELECT coalesce(max(id), 0) FROM groups

-- name: take_requests
-- Take the requests that are done at once. A burial stays until it is done.
DELETE FROM requests WHERE name NOT GLOB 'bury *' RETURNING name

-- name: list_burials
-- List the burials that are not done.
SELECT name FROM requests WHERE name GLOB 'bury *' ORDER BY asked_at_ms, name

-- name: forget_request
-- Delete a request.
DELETE FROM requests WHERE name = ?

-- name: list_replays
-- List dead letters that are to be replayed, of one index at a time.
SELECT id, entry FROM dead_letters
WHERE replay = 1 AND index_name = (SELECT index_name FROM dead_letters WHERE replay = 1 ORDER BY id LIMIT 1)
ORDER BY id LIMIT ?

-- name: delete_dead
-- Delete a dead letter.
DELETE FROM dead_letters WHERE id = ?

-- name: report
-- Store an incident.
INSERT INTO incidents (at_ms, kind, detail) VALUES (:at_ms, :kind, :detail)

-- name: report_once
-- Store an incident, unless the same one is stored already.
INSERT INTO incidents (at_ms, kind, detail)
SELECT :at_ms, :kind, :detail
WHERE NOT EXISTS (SELECT 1 FROM incidents WHERE kind = :kind AND detail = :detail)
