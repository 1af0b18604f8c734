// The invariants that db/schema.sql promises, each by SQL that tries to break it past the store's own checks.
#include "db/run_rows.h"
#include "store_fixture.h"

namespace assay {
namespace {

using testing::HasSubstr;

class SchemaTest : public StoreTest {
 protected:
  SchemaTest() {
    add_worker();
    runs_ = enqueue(2);
    attempt_ = start(runs_[0]);
    store_.reset();
    auto opened = Database::open(path(), Database::Synchronous::full);
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    db_ = std::make_unique<Database>(std::move(*opened));
  }
  // Expects the statement to be refused, and returns the message.
  std::string refused(const std::string& sql) {
    auto status = db_->run(sql);
    EXPECT_FALSE(status.ok()) << sql;
    if (status.ok()) return "";
    EXPECT_EQ(status.error().code, ErrorCode::failed_precondition) << status.error().message;
    return status.error().message;
  }
  void allowed(const std::string& sql) {
    auto status = db_->run(sql);
    EXPECT_TRUE(status.ok()) << status.error().message;
  }

  std::vector<int64_t> runs_;
  AttemptRow attempt_;
  std::unique_ptr<Database> db_;
};

TEST_F(SchemaTest, StatesAreWords) {
  EXPECT_THAT(refused("UPDATE runs SET state = 'sleeping'"), HasSubstr("CHECK constraint failed"));
  EXPECT_THAT(refused("UPDATE attempts SET state = 'sleeping'"), HasSubstr("CHECK constraint failed"));
  EXPECT_THAT(refused("UPDATE workers SET state = 'gone'"), HasSubstr("CHECK constraint failed"));
  EXPECT_THAT(refused("UPDATE devices SET kind = 'tpu'"), HasSubstr("CHECK constraint failed"));
}

TEST_F(SchemaTest, TerminalStateHasFinishedAt) {
  EXPECT_THAT(refused("UPDATE runs SET state = 'failed'"), HasSubstr("terminal_state_has_finished_at"));
  EXPECT_THAT(refused("UPDATE runs SET finished_at = 5"), HasSubstr("terminal_state_has_finished_at"));
  EXPECT_THAT(refused("UPDATE attempts SET state = 'ended', result = 'completed'"), HasSubstr("ended_has_finished_at"));
  EXPECT_THAT(refused("UPDATE attempts SET state = 'ended', finished_at = 5"), HasSubstr("ended_has_result"));
}

TEST_F(SchemaTest, OneLiveAttemptPerRun) {
  EXPECT_THAT(refused("INSERT INTO attempts (run_id, n, lease_epoch, worker_id, state, phase, created_at) "
                      "SELECT run_id, 2, 99, worker_id, 'leased', 'load', 1 FROM attempts"),
              HasSubstr("UNIQUE constraint failed: attempts.run_id"));
}

TEST_F(SchemaTest, LeaseEpochsAreUnique) {
  EXPECT_THAT(refused("INSERT INTO attempts (run_id, n, lease_epoch, worker_id, state, phase, created_at) "
                      "SELECT run_id + 1, 1, lease_epoch, worker_id, 'leased', 'load', 1 FROM attempts"),
              HasSubstr("attempts.lease_epoch"));
}

TEST_F(SchemaTest, RunsAreUniqueByCellAndByName) {
  std::string insert =
      "INSERT INTO runs (experiment_id, name, cell_key, repeat, seed, state, priority, devices, backend, total_steps, "
      "created_at) SELECT experiment_id, ";
  std::string rest =
      ", repeat, seed, state, priority, devices, backend, total_steps, created_at FROM runs WHERE id = 2";
  EXPECT_THAT(refused(insert + "'other', cell_key" + rest),
              HasSubstr("runs.experiment_id, runs.cell_key, runs.repeat"));
  EXPECT_THAT(refused(insert + "name, 'other'" + rest), HasSubstr("runs.name, runs.experiment_id"));
  EXPECT_THAT(refused("INSERT INTO experiments (name, tag, spec_hash, baseline, on_failure, max_attempts, retry_on, "
                      "backoff_s, created_at, spec_text) SELECT name, tag, '', '', 'continue', 1, '', 0, 1, '' FROM "
                      "experiments"),
              HasSubstr("experiments.tag, experiments.name"));
}

TEST_F(SchemaTest, ADeviceHasOneHolderAndItIsAlive) {
  EXPECT_THAT(refused("INSERT INTO allocations VALUES ('d0', 1)"), HasSubstr("allocations.device_id"));
  allowed("UPDATE attempts SET state = 'ended', result = 'completed', finished_at = 5");
  EXPECT_EQ(*db_->integer("SELECT count(*) FROM allocations"), 0);
  EXPECT_THAT(refused("INSERT INTO allocations VALUES ('d0', 1)"), HasSubstr("an ended attempt holds no device"));
}

TEST_F(SchemaTest, HistoryIsNeverTakenBack) {
  EXPECT_THAT(refused("DELETE FROM events"), HasSubstr("events are append-only"));
  EXPECT_THAT(refused("UPDATE events SET cause = 'nothing'"), HasSubstr("events are append-only"));
  EXPECT_THAT(refused("DELETE FROM attempts"), HasSubstr("an attempt is never deleted"));
  EXPECT_THAT(refused("DELETE FROM runs"), HasSubstr("a run is never deleted"));
  allowed("UPDATE attempts SET state = 'ended', result = 'completed', finished_at = 5");
  EXPECT_THAT(refused("UPDATE attempts SET result = 'cancelled'"), HasSubstr("an ended attempt is never changed"));
}

TEST_F(SchemaTest, CancelledRunsAreNotRevivedAndOnlyRetriesWait) {
  allowed("UPDATE runs SET cancel_requested = 1 WHERE state = 'running'");
  EXPECT_THAT(refused("UPDATE runs SET state = 'queued' WHERE state = 'running'"),
              HasSubstr("cancelled_run_is_not_revived"));
  EXPECT_THAT(refused("UPDATE runs SET not_before = 5"), HasSubstr("only_retry_wait_has_not_before"));
}

TEST_F(SchemaTest, RowsNameRowsThatExist) {
  EXPECT_THAT(refused("UPDATE attempts SET worker_id = 'nobody'"), HasSubstr("FOREIGN KEY constraint failed"));
  EXPECT_THAT(refused("UPDATE runs SET experiment_id = 99 WHERE id = 2"), HasSubstr("FOREIGN KEY"));
  EXPECT_THAT(refused("DELETE FROM workers"), HasSubstr("FOREIGN KEY constraint failed"));
}

TEST_F(SchemaTest, TablesAreStrict) {
  EXPECT_THAT(refused("UPDATE runs SET seed = 'many'"), HasSubstr("cannot store TEXT value in INTEGER column"));
}

TEST_F(SchemaTest, ConnectionHasTheDurableSettings) {
  EXPECT_EQ(*db_->integer("PRAGMA synchronous"), 2);  // FULL
  EXPECT_EQ(*db_->integer("PRAGMA foreign_keys"), 1);
  EXPECT_EQ(*db_->integer("SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
  EXPECT_EQ(*db_->integer("PRAGMA busy_timeout"), 5'000);
}

TEST_F(SchemaTest, ClaimsAndListsReadPartialIndexes) {
  auto plan = [&](const std::string& sql) {
    auto rows = db_->prepare("EXPLAIN QUERY PLAN " + sql);
    EXPECT_TRUE(rows.ok());
    std::string out;
    rows->bind();
    while (*rows->step()) out += rows->text(3) + "\n";
    return out;
  };
  EXPECT_THAT(plan("SELECT r.id FROM runs r WHERE r.state IN ('queued', 'retry_wait') AND r.not_before <= 5 "
                   "ORDER BY r.priority DESC, r.id LIMIT 1"),
              AllOf(HasSubstr("runs_claimable"), Not(HasSubstr("TEMP B-TREE"))));
  EXPECT_THAT(plan("SELECT r.id FROM runs r WHERE " + in_stage(RunStage::ended) +
                   " ORDER BY r.finished_at DESC, r.id DESC LIMIT 1"),
              AllOf(HasSubstr("runs_ended"), Not(HasSubstr("TEMP B-TREE"))));
  EXPECT_THAT(plan("SELECT min(not_before) FROM runs WHERE state = 'retry_wait'"), HasSubstr("runs_retry_due"));
}

}  // namespace
}  // namespace assay
