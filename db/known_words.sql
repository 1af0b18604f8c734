-- Migration of queue.db: why an attempt was told to stop is kept, and words that are only kept have no list here.
--
-- Words of which constraints, indexes and triggers speak (states, results, kinds of devices) stay lists in a CHECK: what
-- is new of them needs a migration, and tests/db/words_test.cpp says so. What is only stored and read (reasons, phases,
-- kinds of events) is checked against a table of its own, which the program fills from spec/words.h whenever it opens
-- the file (db/known_words.h): what is new of them needs nothing here.

CREATE TABLE failure_reasons (word TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE stop_reasons    (word TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE phases          (word TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE event_kinds     (word TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
-- What the rows below need at once; the program adds the rest.
INSERT INTO failure_reasons SELECT 'none' UNION SELECT reason FROM attempts;
INSERT INTO stop_reasons VALUES ('none'), ('cancelled'), ('stalled'), ('timeout'), ('worker_stopped');
INSERT INTO phases VALUES ('load'), ('step'), ('checkpoint');
-- The feed is long and only grows, so it is not copied for a foreign key.
CREATE TRIGGER events_of_known_kinds BEFORE INSERT ON events
WHEN NOT EXISTS (SELECT 1 FROM event_kinds WHERE word = NEW.kind) BEGIN
  SELECT RAISE(ABORT, 'the feed knows no such kind of event');
END;

CREATE TABLE new_attempts (
  id                INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id            INTEGER NOT NULL REFERENCES runs (id),
  n                 INTEGER CHECK (n >= 1),
  lease_epoch       INTEGER NOT NULL UNIQUE,
  worker_id         TEXT    NOT NULL REFERENCES workers (id),
  state             TEXT    NOT NULL CHECK (state IN
                      ('leased', 'starting', 'running', 'stopping', 'unreachable', 'ended')),
  phase             TEXT    NOT NULL REFERENCES phases (word),
  stop_reason       TEXT    NOT NULL DEFAULT 'none' REFERENCES stop_reasons (word),
  result            TEXT    NOT NULL DEFAULT 'none' CHECK (result IN
                      ('none', 'completed', 'failed', 'cancelled', 'stopped', 'not_started')),
  reason            TEXT    NOT NULL DEFAULT 'none' REFERENCES failure_reasons (word),
  step              INTEGER NOT NULL DEFAULT -1,
  exit_code         INTEGER NOT NULL DEFAULT -1,
  signal            INTEGER NOT NULL DEFAULT 0,
  peak_mem_mib      REAL    NOT NULL DEFAULT 0,
  created_at        INTEGER NOT NULL,
  started_at        INTEGER,
  finished_at       INTEGER,
  resumed_from_step INTEGER NOT NULL DEFAULT -1,
  log_path          TEXT    NOT NULL DEFAULT '',
  operation         TEXT    NOT NULL DEFAULT '',
  tensor            TEXT    NOT NULL DEFAULT '',
  error             TEXT    NOT NULL DEFAULT '',
  log_tail          TEXT    NOT NULL DEFAULT '',   -- last: long, and lists do not read it
  UNIQUE (run_id, n),
  CONSTRAINT ended_has_finished_at CHECK ((state = 'ended') = (finished_at IS NOT NULL)),
  CONSTRAINT ended_has_result CHECK ((state = 'ended') = (result <> 'none')),
  CONSTRAINT failed_has_reason CHECK ((result = 'failed') = (reason <> 'none')),
  CONSTRAINT started_has_n CHECK ((result = 'not_started') = (n IS NULL)),
  CONSTRAINT stopping_has_reason CHECK (state <> 'stopping' OR stop_reason <> 'none')
) STRICT;

-- The phase 'plan' goes: no trainer has ever told it.
--
-- Why a live attempt was told to stop is in the feed. These are the causes that programs until here wrote, but for
-- "stopped by assay down".
WITH told AS (
  SELECT a.id, r.cancel_requested, (
    SELECT e.cause FROM events e WHERE e.run_id = a.run_id AND e.run_id <> 0 AND e.attempt_id = a.id AND
      e.kind = 'attempt_stopping' ORDER BY e.id DESC LIMIT 1) AS cause
  FROM attempts a JOIN runs r ON r.id = a.run_id WHERE a.state <> 'ended')
INSERT INTO new_attempts (id, run_id, n, lease_epoch, worker_id, state, phase, stop_reason, result, reason, step,
    exit_code, signal, peak_mem_mib, created_at, started_at, finished_at, resumed_from_step, log_path, operation, tensor,
    error, log_tail)
  SELECT a.id, run_id, n, lease_epoch, worker_id, state, CASE phase WHEN 'plan' THEN 'load' ELSE phase END,
    CASE WHEN told.cancel_requested THEN 'cancelled'
         WHEN told.cause LIKE 'no progress for %' THEN 'stalled'
         WHEN told.cause LIKE 'ran longer than its timeout %' THEN 'timeout'
         WHEN told.cause IS NOT NULL OR state = 'stopping' THEN 'worker_stopped'
         ELSE 'none' END,
    result, reason, step, exit_code, signal, peak_mem_mib, created_at, started_at, finished_at, resumed_from_step,
    log_path, operation, tensor, error, log_tail FROM attempts a LEFT JOIN told ON told.id = a.id;
-- Ids go on where they were, whatever the largest in the table is.
DELETE FROM sqlite_sequence WHERE name = 'new_attempts';
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_attempts', seq FROM sqlite_sequence WHERE name = 'attempts';

-- Rows that refer to the old table are put aside while there is none.
CREATE TABLE held_devices AS SELECT device_id, attempt_id FROM allocations;
DELETE FROM allocations;
DROP TRIGGER allocations_need_live_attempt;
DROP TABLE attempts;
ALTER TABLE new_attempts RENAME TO attempts;

CREATE UNIQUE INDEX attempts_one_live_per_run ON attempts (run_id) WHERE state <> 'ended';
CREATE TRIGGER attempts_end_for_good BEFORE UPDATE ON attempts WHEN OLD.state = 'ended' BEGIN
  SELECT RAISE(ABORT, 'an ended attempt is never changed');
END;
CREATE TRIGGER attempts_stay BEFORE DELETE ON attempts BEGIN
  SELECT RAISE(ABORT, 'an attempt is never deleted');
END;
CREATE TRIGGER attempts_free_devices AFTER UPDATE OF state ON attempts WHEN NEW.state = 'ended' BEGIN
  DELETE FROM allocations WHERE attempt_id = NEW.id;
END;
CREATE TRIGGER allocations_need_live_attempt BEFORE INSERT ON allocations
WHEN (SELECT state FROM attempts WHERE id = NEW.attempt_id) = 'ended' BEGIN
  SELECT RAISE(ABORT, 'an ended attempt holds no device');
END;

INSERT INTO allocations SELECT device_id, attempt_id FROM held_devices;
DROP TABLE held_devices;
