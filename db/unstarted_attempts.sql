-- Migration of queue.db: attempts may end as 'stopped' (with their worker) or 'not_started'. One that has not started
-- has no number: n is NULL, and the run's next attempt takes its place. SQLite changes a constraint by copying the
-- table.

ALTER TABLE runs ADD COLUMN stopped_attempts INTEGER NOT NULL DEFAULT 0 CHECK (stopped_attempts >= 0);

CREATE TABLE new_attempts (
  id                INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id            INTEGER NOT NULL REFERENCES runs (id),
  n                 INTEGER CHECK (n >= 1),
  lease_epoch       INTEGER NOT NULL UNIQUE,
  worker_id         TEXT    NOT NULL REFERENCES workers (id),
  state             TEXT    NOT NULL CHECK (state IN
                      ('leased', 'starting', 'running', 'stopping', 'unreachable', 'ended')),
  phase             TEXT    NOT NULL CHECK (phase IN ('load', 'plan', 'step', 'checkpoint')),
  result            TEXT    NOT NULL DEFAULT 'none' CHECK (result IN
                      ('none', 'completed', 'failed', 'cancelled', 'stopped', 'not_started')),
  reason            TEXT    NOT NULL DEFAULT 'none' CHECK (reason IN
                      ('none', 'config_invalid', 'data_error', 'plan_error', 'out_of_memory', 'non_finite',
                       'device_error', 'communication_error', 'timeout', 'stalled', 'worker_lost', 'crashed',
                       'internal')),
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
  CONSTRAINT started_has_n CHECK ((result = 'not_started') = (n IS NULL))
) STRICT;
INSERT INTO new_attempts (id, run_id, n, lease_epoch, worker_id, state, phase, result, reason, step, exit_code, signal,
    peak_mem_mib, created_at, started_at, finished_at, resumed_from_step, log_path, operation, tensor, error, log_tail)
  SELECT id, run_id, n, lease_epoch, worker_id, state, phase, result, reason, step, exit_code, signal, peak_mem_mib,
    created_at, started_at, finished_at, resumed_from_step, log_path, operation, tensor, error, log_tail FROM attempts;
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
