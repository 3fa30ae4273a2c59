-- Each statement has a name; the line below the name describes it. A statement contains a fragment as {its name}.

-- fragment: chosen
-- The dead letters that a command chooses (`Choice`). `fold` ignores case.
(:log_ids IS NULL OR log_id IN (SELECT value FROM json_each(:log_ids)))
AND (:error_type IS NULL OR error_type = :error_type)
AND (:reason IS NULL OR instr(fold(reason), fold(:reason)) > 0)
AND (:index_name IS NULL OR index_name = :index_name)
AND (:died_before_ms IS NULL OR died_at_ms < :died_before_ms)
AND (:died_after_ms IS NULL OR died_at_ms >= :died_after_ms)
AND (:started_ms IS NULL OR died_at_ms < :started_ms OR died_at_ms > :now_ms)

-- fragment: meant
-- The groups that may contain pending events which a command means (`Burial`).
(received_at_ms < :received_before_ms OR (:also_ahead AND received_at_ms > :now_ms))
AND (:index_name IS NULL OR index_name = :index_name)
AND (NOT :refused OR refused_status != 0)

-- name: oldest_group
-- Find the time at which the oldest group was received.
SELECT received_at_ms FROM groups ORDER BY id LIMIT 1

-- name: newest_group
-- Find the number of the newest group, and the time at which it was received.
SELECT id, received_at_ms FROM groups ORDER BY id DESC LIMIT 1

-- name: next_group
-- Read the oldest group behind a given one, with its body.
SELECT id, codec, body, stored_bytes, received_at_ms, index_name, attempts, attempted_at_ms, strikes, refusals,
    refused_status
FROM groups WHERE id > ? ORDER BY id LIMIT 1

-- name: events_until
-- Count the events of the groups up to a given one.
SELECT coalesce(sum(events), 0) FROM groups WHERE id <= ?

-- name: refused_pending
-- Count the pending events that were refused, by the status of the last refusal, most first.
SELECT refused_status, sum(events) FROM groups WHERE refused_status != 0
GROUP BY refused_status ORDER BY sum(events) DESC, refused_status

-- name: count_pending_where
-- Count the pending events that a command means if it names no log_ids, and their bytes as dead letters.
SELECT index_name, sum(events), sum(body_bytes) FROM groups WHERE {meant} GROUP BY index_name

-- name: list_pending_where
-- List the groups that may contain pending events which a command means.
SELECT id FROM groups WHERE {meant} ORDER BY id

-- name: list_dead
-- List the dead letters, newest first.
SELECT id, index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, replay, entry
FROM dead_letters WHERE {chosen}
ORDER BY died_at_ms DESC, id DESC
LIMIT :limit

-- name: dead_types
-- Count the dead letters of each type that are not to be replayed, most first.
SELECT error_type, count(*) FROM dead_letters WHERE replay = 0 GROUP BY error_type ORDER BY count(*) DESC, error_type

-- name: count_dead_where
-- Count the dead letters that a command means, and those among them that are to be replayed.
SELECT count(*), coalesce(sum(replay), 0) FROM dead_letters
WHERE {chosen}

-- name: find_dead_where
-- Find dead letters behind a given one that a command means and that are not to be replayed, with their size.
SELECT id, length(entry) FROM dead_letters
WHERE id > :after_id AND replay = 0
  AND {chosen}
ORDER BY id LIMIT :limit

-- name: request_replay_found
-- Ask the owner to move back those of the dead letters found that a command still means.
UPDATE dead_letters SET replay = 1
WHERE id IN (SELECT value FROM json_each(:found)) AND replay = 0
  AND {chosen}

-- name: purge_dead_found
-- Delete those of the dead letters found that a command still means and that are not to be replayed.
DELETE FROM dead_letters
WHERE id IN (SELECT value FROM json_each(:found)) AND replay = 0
  AND {chosen}

-- name: correct_dead
-- Replace the entry of a dead letter, unless it was changed or requested for replay since it was read.
UPDATE dead_letters SET entry = :entry, replay = :replay WHERE id = :id AND replay = 0 AND entry = :read_entry

-- name: ask
-- Store a request for the owner.
INSERT INTO requests (name, asked_at_ms) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET asked_at_ms = excluded.asked_at_ms

-- name: incidents_since
-- List the incidents since a time, newest first.
SELECT at_ms, kind, detail FROM incidents WHERE at_ms >= ? ORDER BY id DESC LIMIT ?

-- name: has_work
-- Return whether there is work for an owner: events, requests, letters to be replayed or past their retention.
SELECT EXISTS (SELECT 1 FROM groups)
    OR EXISTS (SELECT 1 FROM requests)
    OR EXISTS (SELECT 1 FROM dead_letters WHERE replay = 1)
    OR EXISTS (SELECT 1 FROM dead_letters WHERE died_at_ms < ?)
