-- Each statement has a name; the line below the name describes it.

-- name: save_letter
-- Store a dead letter of another file. If there are two for one event, the newest stays.
INSERT INTO dead_letters (index_name, log_id, error_type, reason, attempts, attempted_at_ms, died_at_ms, replay, entry)
VALUES (:index_name, :log_id, :error_type, :reason, :attempts, :attempted_at_ms, :died_at_ms, :replay, :entry)
ON CONFLICT (index_name, log_id) DO UPDATE SET
    error_type = excluded.error_type, reason = excluded.reason,
    attempts = excluded.attempts, attempted_at_ms = excluded.attempted_at_ms, died_at_ms = excluded.died_at_ms,
    replay = excluded.replay, entry = excluded.entry
WHERE excluded.died_at_ms >= dead_letters.died_at_ms

-- name: find_saved
-- Read the body of a group that was saved before, and whether no table led to it.
SELECT body, EXISTS (SELECT 1 FROM temp.unreferenced WHERE id = groups.id) FROM groups WHERE id = ?
