-- Each statement has a name; the line below the name describes it.

-- name: list_expired
-- List dead letters that are past their retention.
SELECT id, index_name, log_id, error_type, reason, died_at_ms, entry, attempts, attempted_at_ms
FROM dead_letters WHERE died_at_ms < ? AND replay = 0 ORDER BY died_at_ms LIMIT ?

-- name: expire_dead
-- Delete a dead letter, unless it died again or is to be replayed since it was listed.
DELETE FROM dead_letters WHERE id = ? AND died_at_ms < ? AND replay = 0

-- name: running_time
-- Read the running time of all owners together, as far as it was noted.
SELECT coalesce(max(ran_ms), 0) FROM clock_samples

-- name: note_clock
-- Store the running time, and the lowest value of the clock in these ten minutes of it.
INSERT INTO clock_samples (bucket, ran_ms, lowest_ms) VALUES (:bucket, :ran_ms, :clock_ms)
ON CONFLICT (bucket) DO UPDATE SET
    ran_ms = excluded.ran_ms, lowest_ms = min(clock_samples.lowest_ms, excluded.lowest_ms)

-- name: forget_clock
-- Delete the samples before the newest one that is as old as a given bucket.
DELETE FROM clock_samples WHERE bucket < (SELECT max(bucket) FROM clock_samples WHERE bucket <= ?)

-- name: lowest_clock
-- Find the lowest value of the clock, and the bucket of the first sample.
SELECT min(lowest_ms), min(bucket) FROM clock_samples
