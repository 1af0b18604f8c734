#include "db/migrations.h"

#include <array>

#include "store_fixture.h"

namespace assay {
namespace {

using testing::HasSubstr;

class MigrationsTest : public testing::Test {
 protected:
  Database open() {
    auto db = Database::open(folder_.path() + "/queue.db", Database::Synchronous::full);
    if (!db.ok()) throw std::runtime_error(db.error().message);
    return std::move(*db);
  }
  TempFolder folder_;
};

constexpr Migration first{1, "make a", "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (7);"};
constexpr Migration second{2, "add y", "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 9;"};
constexpr Migration broken{3, "break", "INSERT INTO a VALUES (8, 8); INSERT INTO nowhere VALUES (1);"};

TEST_F(MigrationsTest, FromNothingToTheNewest) {
  Database db = open();
  ASSERT_TRUE(migrate(db, queue_schema(), 123).ok());
  EXPECT_EQ(*db.integer("PRAGMA user_version"), queue_schema().migrations.back().version);
  EXPECT_EQ(*db.integer("SELECT applied_at FROM migrations WHERE version = 1"), 123);
  EXPECT_EQ(*db.integer("SELECT count(*) FROM store"), 1);
  ASSERT_TRUE(migrate(db, queue_schema(), 456).ok());
  EXPECT_EQ(*db.integer("SELECT count(*) FROM migrations"), std::ssize(queue_schema().migrations))
      << "the second time nothing is done";
}

TEST_F(MigrationsTest, AQueueOfTheFirstVersionKeepsItsDevices) {
  Database db = open();
  const Schema old{queue_schema().what, queue_schema().application_id, queue_schema().migrations.first(1)};
  ASSERT_TRUE(migrate(db, old, 1).ok());
  ASSERT_TRUE(db.run("INSERT INTO workers VALUES ('w', 'host', 'boot', 1, 2, 'connected', 3)").ok());
  ASSERT_TRUE(db.run("INSERT INTO devices VALUES ('GPU-a', 'w', 'cuda', 'H100', 80, 1)").ok());
  ASSERT_TRUE(migrate(db, queue_schema(), 2).ok());
  EXPECT_EQ(*db.integer("SELECT count(*) FROM devices WHERE id = 'GPU-a' AND memory_bytes = 80 AND drained_by = ''"),
            1);
}

// The home may have been moved before, and may itself lie under a folder called runs.
TEST_F(MigrationsTest, LogPathsBecomeRelativeToTheHomeWhereverItWas) {
  Database db = open();
  const Schema old{queue_schema().what, queue_schema().application_id, queue_schema().migrations.first(2)};
  ASSERT_TRUE(migrate(db, old, 1).ok());
  ASSERT_TRUE(db.run_script("INSERT INTO workers VALUES ('w', 'host', 'boot', 1, 2, 'connected', 3);"
                            "INSERT INTO experiments VALUES (1, 'exp', 't1', 'h', '', 'continue', 1, '', 0, 1, 'text');"
                            "INSERT INTO runs (id, experiment_id, name, cell_key, repeat, seed, state, priority, "
                            "devices, backend, attempts, total_steps, created_at) "
                            "VALUES (1, 1, 'a', 'cell', 1, 1, 'running', 0, 1, 'cpu', 4, 10, 1)")
                  .ok());
  const auto attempt = [&](int n, const std::string& path, bool ended) {
    const auto inserted = db.run(
        "INSERT INTO attempts (run_id, n, lease_epoch, worker_id, state, phase, result, created_at, "
        "finished_at, log_path) VALUES (1, ?1, ?1, 'w', ?2, 'step', ?3, 1, ?4, ?5)",
        n, ended ? "ended" : "running", ended ? "completed" : "none", ended ? std::optional<int64_t>(2) : std::nullopt,
        path);
    ASSERT_TRUE(inserted.ok()) << inserted.error().message;
  };
  attempt(1, "/old/home/runs/exp/t1/a/attempt1/trainer.log", true);
  attempt(2, "/runs/home/runs/exp/t1/a/attempt2/trainer.log", true);
  attempt(3, "/elsewhere/trainer.log", true);
  attempt(4, "", false);
  ASSERT_TRUE(migrate(db, queue_schema(), 2).ok());
  const auto path_of = [&](int n) {
    auto row = db.prepare("SELECT log_path FROM attempts WHERE n = ?");
    EXPECT_TRUE(*row->bind(n).step());
    return row->text(0);
  };
  EXPECT_EQ(path_of(1), "runs/exp/t1/a/attempt1/trainer.log");
  EXPECT_EQ(path_of(2), "runs/exp/t1/a/attempt2/trainer.log");
  EXPECT_EQ(path_of(3), "/elsewhere/trainer.log");
  EXPECT_EQ(path_of(4), "");
  EXPECT_FALSE(db.run("UPDATE attempts SET error = 'x' WHERE n = 1").ok()) << "ended attempts are protected again";
}

TEST_F(MigrationsTest, MetricsOfTheFirstVersionKnowHowFarTheQueueHadCome) {
  Database db = open();
  const Schema old{metrics_schema().what, metrics_schema().application_id, metrics_schema().migrations.first(1)};
  ASSERT_TRUE(migrate(db, old, 1).ok());
  ASSERT_TRUE(db.run_script("INSERT INTO progress (attempt_id, acked_seq, steps_observed, last_step, last_val_step) "
                            "VALUES (3, 1, 1, 0, -1), (9, 1, 1, 0, -1)")
                  .ok());
  ASSERT_TRUE(migrate(db, metrics_schema(), 2).ok());
  EXPECT_EQ(*db.integer("SELECT greatest FROM queue_mark WHERE counter = 'attempts'"), 9);
  EXPECT_EQ(*db.integer("SELECT greatest FROM queue_mark WHERE counter = 'lease_epoch'"), 9);
}

// What an older program had trained is gone on with; a queue of this one takes nothing that names nobody.
TEST_F(MigrationsTest, ARunGoesOnFromCheckpointsOfBeforeAttemptsHadKeys) {
  {
    Database db = open();
    const Schema old{queue_schema().what, queue_schema().application_id, queue_schema().migrations.first(2)};
    ASSERT_TRUE(migrate(db, old, 1).ok());
    ASSERT_TRUE(
        db.run_script(
              "INSERT INTO workers VALUES ('w', 'host', 'boot', 1, 2, 'connected', 3);"
              "INSERT INTO experiments VALUES (1, 'e', 't', 'h', '', 'continue', 1, '', 0, 1, 'text');"
              "INSERT INTO runs (id, experiment_id, name, cell_key, repeat, seed, state, priority, devices, "
              "backend, attempts, total_steps, created_at) VALUES "
              "(1, 1, 'a', 'c', 1, 1, 'queued', 0, 1, 'cpu', 1, 3, 1), "
              "(2, 1, 'b', 'd', 1, 1, 'queued', 0, 1, 'cpu', 0, 3, 1);"
              "INSERT INTO attempts (id, run_id, n, lease_epoch, worker_id, state, phase, result, reason, "
              "created_at, finished_at) VALUES (4, 1, 1, 4, 'w', 'ended', 'step', 'failed', 'worker_lost', 1, 2)")
            .ok());
  }
  const ManualClock clock;
  auto opened = RunStore::open(folder_.path() + "/queue.db", clock);
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  RunStore& store = **opened;
  const auto lease_again = [&](int64_t run) {
    RunChange take;
    take.run_id = run;
    take.from = RunState::queued;
    take.to = RunState::running;
    take.kind = EventKind::run_started;
    auto applied = store.apply({take, NewAttempt{.run_id = run, .worker_id = "w"}});
    if (!applied.ok()) throw std::runtime_error(applied.error().message);
    return applied->attempts.front();
  };
  const AttemptRow old = store.attempts_of(1)->at(0);
  EXPECT_THAT(*store.earlier_keys(lease_again(1)), testing::ElementsAre(store.attempt_key(old), ""));
  EXPECT_THAT(*store.earlier_keys(lease_again(2)), testing::IsEmpty());
}

TEST_F(MigrationsTest, AttemptsAndTheDevicesThatTheyHoldAreKeptWhenNumbersBecomeOptional) {
  Database db = open();
  const Schema old{queue_schema().what, queue_schema().application_id, queue_schema().migrations.first(2)};
  ASSERT_TRUE(migrate(db, old, 1).ok());
  for (const char* sql :
       {"INSERT INTO experiments VALUES (1, 'e', 't', 'h', '', 'continue', 1, '', 0, 1, 'text')",
        "INSERT INTO runs (id, experiment_id, name, cell_key, repeat, seed, state, priority, devices, backend, "
        "attempts, total_steps, created_at) VALUES (1, 1, 'a', 'c', 1, 1, 'running', 0, 1, 'cpu', 2, 3, 1)",
        "INSERT INTO workers VALUES ('w', 'host', 'boot', 1, 2, 'connected', 3)",
        "INSERT INTO devices (id, worker_id, kind, name, memory_bytes) VALUES ('d', 'w', 'cpu', 'x', 1)",
        "INSERT INTO attempts (id, run_id, n, lease_epoch, worker_id, state, phase, result, reason, created_at, "
        "finished_at, log_tail) VALUES (1, 1, 1, 1, 'w', 'ended', 'load', 'failed', 'crashed', 1, 2, 'tail')",
        "INSERT INTO attempts (id, run_id, n, lease_epoch, worker_id, state, phase, created_at) VALUES "
        "(7, 1, 2, 2, 'w', 'running', 'step', 1)",
        "INSERT INTO allocations VALUES ('d', 7)", "UPDATE sqlite_sequence SET seq = 20 WHERE name = 'attempts'"})
    ASSERT_TRUE(db.run(sql).ok()) << sql;
  const Status migrated = migrate(db, queue_schema(), 2);
  ASSERT_TRUE(migrated.ok()) << migrated.error().message;
  EXPECT_EQ(*db.integer("SELECT count(*) FROM attempts WHERE id = 1 AND log_tail = 'tail' AND reason = 'crashed'"), 1);
  EXPECT_EQ(*db.integer("SELECT attempt_id FROM allocations WHERE device_id = 'd'"), 7);
  EXPECT_EQ(*db.integer("SELECT count(*) FROM pragma_foreign_key_check"), 0);
  // The invariants are in force again.
  EXPECT_FALSE(db.run("DELETE FROM attempts").ok());
  EXPECT_FALSE(db.run("UPDATE attempts SET log_path = 'x' WHERE id = 1").ok());
  EXPECT_FALSE(db.run("UPDATE attempts SET n = NULL WHERE id = 7").ok());
  EXPECT_FALSE(db.run("INSERT INTO allocations VALUES ('d', 1)").ok());
  const char* end =
      "UPDATE attempts SET state = 'ended', result = 'not_started', n = NULL, finished_at = 3 WHERE id = 7";
  ASSERT_TRUE(db.run(end).ok());
  EXPECT_EQ(*db.integer("SELECT count(*) FROM allocations"), 0);
  ASSERT_TRUE(db.run("INSERT INTO attempts (run_id, n, lease_epoch, worker_id, state, phase, created_at) VALUES "
                     "(1, 2, 3, 'w', 'leased', 'load', 4)")
                  .ok());
  EXPECT_EQ(db.last_insert_id(), 21) << "ids go on where they were";
}

// Until then why an attempt had been told to stop was in the feed alone, and a restarted daemon took it for stalled.
TEST_F(MigrationsTest, WhyALiveAttemptStopsIsTakenFromTheFeed) {
  Database db = open();
  const Schema old{queue_schema().what, queue_schema().application_id, queue_schema().migrations.first(5)};
  ASSERT_TRUE(migrate(db, old, 1).ok());
  ASSERT_TRUE(db.run_script("INSERT INTO workers VALUES ('w', 'host', 'boot', 1, 2, 'connected', 3);"
                            "INSERT INTO experiments VALUES (1, 'e', 't', 'h', '', 'continue', 1, '', 0, 1, 'text');")
                  .ok());
  int64_t id = 0;
  const auto attempt = [&](const char* state, const char* cause, bool cancelled) {
    ++id;
    for (const Status& done :
         {db.run(
              "INSERT INTO runs (id, experiment_id, name, cell_key, repeat, seed, state, priority, devices, backend, "
              "attempts, total_steps, created_at, cancel_requested) VALUES (?1, 1, 'r' || ?1, 'c' || ?1, 1, 1, "
              "'running', 0, 1, 'cpu', 1, 3, 1, ?2)",
              id, cancelled),
          db.run("INSERT INTO attempts (id, run_id, n, lease_epoch, worker_id, state, phase, created_at) VALUES "
                 "(?1, ?1, 1, ?1, 'w', ?2, 'step', 1)",
                 id, state),
          db.run("INSERT INTO events (at, experiment_id, run_id, attempt_id, kind, from_state, to_state, cause) SELECT "
                 "1, 1, ?1, ?1, 'attempt_stopping', 'running', 'stopping', ?2 WHERE ?2 <> ''",
                 id, cause)})
      ASSERT_TRUE(done.ok()) << done.error().message;
  };
  attempt("running", "", false);
  attempt("stopping", "no progress for 600 s in phase step", false);
  attempt("stopping", "ran longer than its timeout of 5 s", false);
  attempt("stopping", "stopped by assay down", false);
  attempt("stopping", "assay cancel", true);
  attempt("unreachable", "no progress for 600 s in phase step", false);
  attempt("unreachable", "", true);
  const Status migrated = migrate(db, queue_schema(), 2);
  ASSERT_TRUE(migrated.ok()) << migrated.error().message;
  std::vector<std::string> reasons;
  auto rows = db.prepare("SELECT stop_reason FROM attempts ORDER BY id");
  rows->bind();
  while (*rows->step()) reasons.push_back(rows->text(0));
  EXPECT_THAT(reasons, testing::ElementsAre("none", "stalled", "timeout", "worker_stopped", "cancelled", "stalled",
                                            "cancelled"));
}

TEST_F(MigrationsTest, AnOlderFileGetsWhatItLacksAndKeepsItsRows) {
  Database db = open();
  ASSERT_TRUE(migrate(db, {"test", 5, std::array{first}}, 1).ok());
  ASSERT_TRUE(migrate(db, {"test", 5, std::array{first, second}}, 2).ok());
  EXPECT_EQ(*db.integer("SELECT x * 10 + y FROM a"), 79);
  EXPECT_EQ(*db.integer("PRAGMA user_version"), 2);
  EXPECT_EQ(*db.integer("SELECT count(*) FROM migrations WHERE name IN ('make a', 'add y')"), 2);
}

TEST_F(MigrationsTest, AFailedMigrationLeavesTheFileAsItWas) {
  Database db = open();
  auto status = migrate(db, {"test", 5, std::array{first, second, broken}}, 1);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("migration 3 \"break\": "));
  EXPECT_THAT(status.error().message, HasSubstr("no such table: nowhere"));
  EXPECT_EQ(*db.integer("PRAGMA user_version"), 2);
  EXPECT_EQ(*db.integer("SELECT count(*) FROM a"), 1);
}

TEST_F(MigrationsTest, ANewerFileIsRefusedByName) {
  Database db = open();
  ASSERT_TRUE(migrate(db, {"test", 5, std::array{first, second}}, 1).ok());
  auto status = migrate(db, {"test", 5, std::array{first}}, 1);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(
      status.error().message,
      HasSubstr("written by a newer Assay: it has migration 2 \"add y\", and this program knows 1 \"make a\" as "
                "the last; use the newer program"));
}

TEST_F(MigrationsTest, TheStoreRefusesANewerFile) {
  ManualClock clock;
  {
    Database db = open();
    ASSERT_TRUE(migrate(db, queue_schema(), 1).ok());
    ASSERT_TRUE(db.run("INSERT INTO migrations VALUES (99, 'from the future', 1)").ok());
    ASSERT_TRUE(db.run("PRAGMA user_version = 99").ok());
  }
  auto store = RunStore::open(folder_.path() + "/queue.db", clock);
  ASSERT_FALSE(store.ok());
  EXPECT_THAT(store.error().message, HasSubstr("99 \"from the future\""));
}

TEST_F(MigrationsTest, AnotherProgramsDatabaseIsNotTouched) {
  Database db = open();
  ASSERT_TRUE(db.run("CREATE TABLE diary (text TEXT)").ok());
  auto status = migrate(db, queue_schema(), 1);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(status.error().message, HasSubstr("is not an Assay queue database"));
  EXPECT_EQ(*db.integer("SELECT count(*) FROM sqlite_schema"), 1);
}

TEST_F(MigrationsTest, MetricsAreNotAQueue) {
  Database db = open();
  ASSERT_TRUE(migrate(db, metrics_schema(), 1).ok());
  EXPECT_THAT(migrate(db, queue_schema(), 1).error().message, HasSubstr("is not an Assay queue database"));
}

}  // namespace
}  // namespace assay
