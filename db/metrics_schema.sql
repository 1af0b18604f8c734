-- metrics.db: what every step of every attempt measured. WAL, synchronous=NORMAL, one writer (assayd).
-- attempt_id is attempts.id of the queue.db with the same store_id.

CREATE TABLE store (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  store_id TEXT    NOT NULL
) STRICT;

-- Columns as the fields of spec/step_metrics.h; those of later versions are added by migrations.
-- NULL = NaN, which SQLite does not store. The primary key makes a step that is sent twice count once.
CREATE TABLE steps (
  attempt_id      INTEGER NOT NULL,
  step            INTEGER NOT NULL CHECK (step >= 0),
  loss            REAL,
  dt_ms           REAL,
  tok_per_sec     REAL,
  mfu             REAL,
  lr_scale        REAL,
  grad_norm       REAL,
  expert_load_min REAL,
  expert_load_max REAL,
  peak_mem_mib    REAL,
  val_loss        REAL,
  unix_ms         INTEGER NOT NULL,
  PRIMARY KEY (attempt_id, step)
) STRICT, WITHOUT ROWID;

-- One row per attempt, written in the transaction that stores its steps: the acknowledgement agrees with the steps
-- after any crash, and a list of runs reads one row each.
CREATE TABLE progress (
  attempt_id         INTEGER PRIMARY KEY,
  acked_seq          INTEGER NOT NULL CHECK (acked_seq >= 0),
  steps_observed     INTEGER NOT NULL,
  last_step          INTEGER NOT NULL,
  last_loss          REAL,
  tail50_tok_per_sec REAL,
  tail50_mfu         REAL,
  tail50_dt_ms       REAL,
  tail50_loss        REAL,
  peak_mem_mib       REAL,
  last_val_loss      REAL,
  last_val_step      INTEGER NOT NULL
) STRICT;
