-- queue.db: what is to run, what runs and what ran.
--
-- One writer (assayd), WAL, synchronous=FULL, foreign_keys=ON. Times are ms since 1970 UTC; NULL = not yet. States are
-- the words of spec/run_outcome.h. The constraints and triggers below are the invariants of the queue: code that breaks
-- one gets an error and its transaction is rolled back. Later changes of the schema are named migrations
-- (db/migrations.cpp), never edits of this file once it is released.

-- The one row that names this queue and counts leases. lease_epoch only grows, over all runs and restarts, so a worker
-- that comes back with an old epoch can never be mistaken for the present holder.
CREATE TABLE store (
  one         INTEGER PRIMARY KEY CHECK (one = 1),
  store_id    TEXT    NOT NULL,
  lease_epoch INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO store (one, store_id) VALUES (1, lower(hex(randomblob(16))));

-- One submitted spec under one tag. Enqueueing the same (name, tag) again adds the runs that are missing.
CREATE TABLE experiments (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  name         TEXT    NOT NULL CHECK (name <> ''),
  tag          TEXT    NOT NULL CHECK (tag <> ''),
  spec_hash    TEXT    NOT NULL,
  baseline     TEXT    NOT NULL,
  on_failure   TEXT    NOT NULL CHECK (on_failure IN ('continue', 'stop_cell', 'stop_all')),
  max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1),
  retry_on     TEXT    NOT NULL,              -- failure reasons, comma separated
  backoff_s    INTEGER NOT NULL CHECK (backoff_s >= 0),
  created_at   INTEGER NOT NULL,
  spec_text    TEXT    NOT NULL,              -- last: long, and read only on request
  UNIQUE (tag, name)
) STRICT;

CREATE TABLE runs (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,  -- also the age: smaller = queued earlier
  experiment_id    INTEGER NOT NULL REFERENCES experiments (id),
  name             TEXT    NOT NULL CHECK (name <> ''),
  cell_key         TEXT    NOT NULL,
  repeat           INTEGER NOT NULL CHECK (repeat >= 1),
  seed             INTEGER NOT NULL,
  state            TEXT    NOT NULL CHECK (state IN
                     ('queued', 'held', 'retry_wait', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  priority         INTEGER NOT NULL,
  devices          INTEGER NOT NULL CHECK (devices >= 1),
  backend          TEXT    NOT NULL CHECK (backend IN ('auto', 'cpu', 'cuda')),  -- for claims: RunConfig::backend
  not_before       INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
  attempts         INTEGER NOT NULL DEFAULT 0,
  lost_attempts    INTEGER NOT NULL DEFAULT 0,
  total_steps      INTEGER NOT NULL,
  created_at       INTEGER NOT NULL,
  finished_at      INTEGER,
  UNIQUE (experiment_id, cell_key, repeat),   -- makes enqueueing again harmless
  UNIQUE (name, experiment_id),
  CONSTRAINT terminal_state_has_finished_at
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CONSTRAINT only_retry_wait_has_not_before CHECK (not_before = 0 OR state = 'retry_wait'),
  -- Cancel intent is durable: a retry that races with a cancel cannot put the run back into the queue.
  CONSTRAINT cancelled_run_is_not_revived
    CHECK (cancel_requested = 0 OR state NOT IN ('queued', 'retry_wait', 'held')),
  CHECK (lost_attempts BETWEEN 0 AND attempts)
) STRICT;

-- Partial indexes hold live rows only, so claims and the top of the list cost the same whatever the history. The WHERE
-- words are repeated letter for letter in the queries of db/run_lists.cpp and db/run_reader.cpp.
CREATE INDEX runs_claimable ON runs (priority DESC, id, not_before) WHERE state IN ('queued', 'retry_wait');
CREATE INDEX runs_retry_due ON runs (not_before) WHERE state = 'retry_wait';
CREATE INDEX runs_active ON runs (priority DESC, id) WHERE state IN ('running', 'paused');
CREATE INDEX runs_waiting ON runs (priority DESC, id) WHERE state IN ('queued', 'retry_wait', 'held');
CREATE INDEX runs_ended ON runs (finished_at DESC, id DESC, state)
  WHERE state IN ('completed', 'failed', 'cancelled');

-- Configs apart from runs: some 2 kB each, written once, while a run's row is small and rewritten at every transition.
CREATE TABLE run_configs (
  run_id      INTEGER PRIMARY KEY REFERENCES runs (id),
  config_toml TEXT NOT NULL
) STRICT;

-- How many runs of an experiment are in each state, kept by triggers: totals without a scan.
CREATE TABLE run_counts (
  experiment_id INTEGER NOT NULL REFERENCES experiments (id),
  state         TEXT    NOT NULL,
  n             INTEGER NOT NULL CHECK (n >= 0),
  PRIMARY KEY (experiment_id, state)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER runs_count_insert AFTER INSERT ON runs BEGIN
  INSERT INTO run_counts VALUES (NEW.experiment_id, NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER runs_count_update AFTER UPDATE OF state ON runs WHEN OLD.state <> NEW.state BEGIN
  UPDATE run_counts SET n = n - 1 WHERE experiment_id = OLD.experiment_id AND state = OLD.state;
  INSERT INTO run_counts VALUES (NEW.experiment_id, NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER runs_stay BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'a run is never deleted'); END;

CREATE TABLE workers (
  id          TEXT    PRIMARY KEY CHECK (id <> ''),
  host        TEXT    NOT NULL,
  boot_id     TEXT    NOT NULL,
  pid         INTEGER NOT NULL,
  start_ticks INTEGER NOT NULL,
  state       TEXT    NOT NULL CHECK (state IN ('connected', 'disconnected')),
  last_seen   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whether a device is busy is not stored here: allocations say so.
CREATE TABLE devices (
  id           TEXT    PRIMARY KEY CHECK (id <> ''),
  worker_id    TEXT    NOT NULL REFERENCES workers (id),
  kind         TEXT    NOT NULL CHECK (kind IN ('cpu', 'cuda')),
  name         TEXT    NOT NULL,
  memory_bytes INTEGER NOT NULL,
  drained      INTEGER NOT NULL DEFAULT 0 CHECK (drained IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_of_worker ON devices (worker_id);

-- One execution of a run. Rows are only added; an ended one never changes.
CREATE TABLE attempts (
  id                INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id            INTEGER NOT NULL REFERENCES runs (id),
  n                 INTEGER NOT NULL CHECK (n >= 1),
  lease_epoch       INTEGER NOT NULL UNIQUE,
  worker_id         TEXT    NOT NULL REFERENCES workers (id),
  state             TEXT    NOT NULL CHECK (state IN
                      ('leased', 'starting', 'running', 'stopping', 'unreachable', 'ended')),
  phase             TEXT    NOT NULL CHECK (phase IN ('load', 'plan', 'step', 'checkpoint')),
  result            TEXT    NOT NULL DEFAULT 'none' CHECK (result IN ('none', 'completed', 'failed', 'cancelled')),
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
  CONSTRAINT failed_has_reason CHECK ((result = 'failed') = (reason <> 'none'))
) STRICT;
CREATE UNIQUE INDEX attempts_one_live_per_run ON attempts (run_id) WHERE state <> 'ended';
CREATE TRIGGER attempts_end_for_good BEFORE UPDATE ON attempts WHEN OLD.state = 'ended' BEGIN
  SELECT RAISE(ABORT, 'an ended attempt is never changed');
END;
CREATE TRIGGER attempts_stay BEFORE DELETE ON attempts BEGIN
  SELECT RAISE(ABORT, 'an attempt is never deleted');
END;

-- Which live attempt holds which device. The primary key keeps a device from being given twice; the rows go when the
-- attempt ends.
CREATE TABLE allocations (
  device_id  TEXT    PRIMARY KEY REFERENCES devices (id),
  attempt_id INTEGER NOT NULL REFERENCES attempts (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX allocations_of_attempt ON allocations (attempt_id);
CREATE TRIGGER allocations_need_live_attempt BEFORE INSERT ON allocations
WHEN (SELECT state FROM attempts WHERE id = NEW.attempt_id) = 'ended' BEGIN
  SELECT RAISE(ABORT, 'an ended attempt holds no device');
END;
CREATE TRIGGER attempts_free_devices AFTER UPDATE OF state ON attempts WHEN NEW.state = 'ended' BEGIN
  DELETE FROM allocations WHERE attempt_id = NEW.id;
END;

-- Every transition with its cause, in commit order: the feed that the command line and the web page follow. id is never
-- used twice, so "everything after id N" is complete. 0 = not about an experiment, run or attempt.
CREATE TABLE events (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  at            INTEGER NOT NULL,
  experiment_id INTEGER NOT NULL,
  run_id        INTEGER NOT NULL,
  attempt_id    INTEGER NOT NULL,
  kind          TEXT    NOT NULL CHECK (kind <> ''),
  from_state    TEXT    NOT NULL,
  to_state      TEXT    NOT NULL,
  cause         TEXT    NOT NULL
) STRICT;
CREATE INDEX events_of_run ON events (run_id) WHERE run_id <> 0;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

-- Answers of mutations by request id, so that a call sent twice does its work once.
CREATE TABLE requests (
  id         TEXT    PRIMARY KEY CHECK (id <> ''),
  method     TEXT    NOT NULL,
  expires_at INTEGER NOT NULL,
  result     TEXT    NOT NULL
) STRICT;
CREATE INDEX requests_by_expiry ON requests (expires_at);

CREATE TABLE settings (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
