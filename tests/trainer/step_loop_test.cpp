#include "worker/trainer/step_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "engine/ops/error.h"
#include "tests/support/manual_clock.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"
#include "worker/attempt/exit_code.h"
#include "worker/attempt/journal.h"

namespace assay {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// A trainer without an engine: counts steps and does what the test says before each.
class FakeTrainer final : public Trainer {
 public:
  struct Script {
    int64_t first_step = 0;
    int64_t resumed_from = -1;
    std::function<void(int64_t)> before_step = [](int64_t) {};
    std::vector<int64_t> saved;  // next_step() at every save
    std::vector<std::string> notes;
  };
  explicit FakeTrainer(Script& script) : script_(script), next_(script.first_step) {}
  const RunPlan& plan() const override { return plan_; }
  int64_t next_step() const override { return next_; }
  int64_t resumed_from_step() const override { return script_.resumed_from; }
  bool has_step_ahead() const override { return false; }
  StepMetrics step(bool) override {
    script_.before_step(next_);
    StepMetrics m;
    m.step = next_++;
    m.loss = 10.0 - static_cast<double>(m.step);
    m.dt_ms = 100;
    m.peak_mem_mib = 64;
    return m;
  }
  OpsCounters counters() const override { return {}; }
  void save_checkpoint() override { script_.saved.push_back(next_); }
  std::vector<std::string> notes() const override { return script_.notes; }

 private:
  Script& script_;
  int64_t next_;
  RunPlan plan_;
};

struct Died {
  FaultKind kind;
};

class StepLoopTest : public testing::Test {
 protected:
  StepLoopTest() {
    options_.config.train.steps = 5;
    options_.folder = AttemptFolder{temp_.path()};
    options_.trainer.checkpoint_folder = "checkpoints";
    hooks_.create = [this](const RunConfig&, const TrainerOptions& o) {
      created_with_ = o;
      return std::make_unique<FakeTrainer>(script_);
    };
    hooks_.print = [this](const std::string& line) { lines_.push_back(line); };
    hooks_.die = [](FaultKind kind) { throw Died{kind}; };
  }

  AttemptOutcome run() { return run_steps(options_, requests_, clock_, hooks_); }

  std::vector<int64_t> journal_steps() {
    std::vector<int64_t> steps;
    const auto records = JournalReader(options_.folder->journal()).read(1000);
    EXPECT_TRUE(records.ok());
    for (const JournalRecord& record : *records) steps.push_back(record.metrics.step);
    return steps;
  }

  TempFolder temp_;
  ManualClock clock_;
  StepLoopOptions options_;
  StepLoopHooks hooks_;
  TrainerRequests requests_;
  TrainerOptions created_with_;
  FakeTrainer::Script script_;
  std::vector<std::string> lines_;
};

TEST_F(StepLoopTest, CompletesEveryStepAndWritesEachToTheJournal) {
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.result, AttemptResult::completed);
  EXPECT_EQ(outcome.step, 4);
  EXPECT_EQ(outcome.peak_mem_mib, 64);
  EXPECT_THAT(journal_steps(), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(lines_, Contains(StartsWith("step 4/5 | loss 6.0000 | dt 100.0 ms")));
  EXPECT_EQ(created_with_.checkpoint_folder, "checkpoints");
}

TEST_F(StepLoopTest, SaysWhatAnOlderJournalHasNoPlaceFor) {
  std::filesystem::copy_file(source_dir() + "/tests/fixtures/home_1/b/journal.bin", options_.folder->journal());
  script_.first_step = 9;
  options_.config.train.steps = 10;
  EXPECT_EQ(run().result, AttemptResult::completed);
  EXPECT_THAT(journal_steps(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(lines_, Contains(StartsWith("the journal was begun by an older version, which did not record: tokens, "
                                          "flops")));
}

TEST_F(StepLoopTest, WorksAloneWithoutAFolder) {
  options_.folder.reset();
  EXPECT_EQ(run().result, AttemptResult::completed);
  EXPECT_TRUE(std::filesystem::is_empty(temp_.path()));
}

TEST_F(StepLoopTest, SavesPeriodicallyAndAtTheEndOnlyWhenAsked) {
  run();
  EXPECT_TRUE(script_.saved.empty()) << "checkpoint_every = 0 saves nothing";
  options_.folder.reset();
  options_.config.train.checkpoint_every = 2;
  run();
  EXPECT_THAT(script_.saved, ElementsAre(2, 4, 5));
}

TEST_F(StepLoopTest, DoesNotSaveTheLastStepTwice) {
  options_.config.train.steps = 4;
  options_.config.train.checkpoint_every = 2;
  run();
  EXPECT_THAT(script_.saved, ElementsAre(2, 4));
}

TEST_F(StepLoopTest, StopFinishesTheStepSavesAndEndsAsCancelled) {
  script_.before_step = [this](int64_t step) {
    if (step == 2) requests_.stop = true;
  };
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.result, AttemptResult::cancelled);
  EXPECT_EQ(exit_code_of(outcome), 9);
  EXPECT_THAT(journal_steps(), ElementsAre(0, 1, 2));
  EXPECT_THAT(script_.saved, ElementsAre(3));
}

TEST_F(StepLoopTest, StopWithoutACheckpointFolderSavesNothing) {
  options_.trainer.checkpoint_folder.clear();
  script_.before_step = [this](int64_t) { requests_.stop = true; };
  EXPECT_EQ(run().result, AttemptResult::cancelled);
  EXPECT_TRUE(script_.saved.empty());
}

TEST_F(StepLoopTest, StopBeforeTheFirstStepSavesNothing) {
  requests_.stop = true;
  EXPECT_EQ(run().result, AttemptResult::cancelled);
  EXPECT_TRUE(script_.saved.empty());
  EXPECT_TRUE(journal_steps().empty());
}

TEST_F(StepLoopTest, CheckpointRequestIsServedOnceAtTheNextBoundary) {
  script_.before_step = [this](int64_t step) {
    if (step == 1) requests_.checkpoint = true;
  };
  EXPECT_EQ(run().result, AttemptResult::completed);
  EXPECT_THAT(script_.saved, ElementsAre(2));
}

TEST_F(StepLoopTest, ResumedRunSaysSoInProgressAndGoesOn) {
  script_.first_step = script_.resumed_from = 3;
  EXPECT_EQ(run().result, AttemptResult::completed);
  EXPECT_THAT(journal_steps(), ElementsAre(3, 4));
  const auto progress = *read_progress(*options_.folder);
  ASSERT_TRUE(progress);
  EXPECT_EQ(progress->phase, Phase::step);
  EXPECT_EQ(progress->resumed_from_step, 3);
}

TEST_F(StepLoopTest, ARunThatResumesBehindItsLastStepSaysThatNothingWasLeft) {
  script_.first_step = script_.resumed_from = 5;
  EXPECT_EQ(run().result, AttemptResult::completed);
  EXPECT_THAT(lines_, Contains("nothing is left to do: every step was made by earlier attempts"));
}

TEST_F(StepLoopTest, ProgressNamesThePhase) {
  options_.config.train.checkpoint_every = 5;
  std::vector<Phase> phases;
  hooks_.create = [&](const RunConfig&, const TrainerOptions&) {
    phases.push_back(read_progress(*options_.folder).value().value().phase);
    return std::make_unique<FakeTrainer>(script_);
  };
  script_.before_step = [&](int64_t) { phases.push_back(read_progress(*options_.folder).value().value().phase); };
  options_.config.train.steps = 1;
  run();
  EXPECT_THAT(phases, ElementsAre(Phase::load, Phase::step));
}

TEST_F(StepLoopTest, NotesAreEachPrintedOnce) {
  script_.notes = {"plan: 3 buffers"};
  script_.before_step = [this](int64_t step) {
    if (step == 2) script_.notes.push_back("captured again");
  };
  run();
  EXPECT_EQ(std::count(lines_.begin(), lines_.end(), "plan: 3 buffers"), 1);
  EXPECT_EQ(std::count(lines_.begin(), lines_.end(), "captured again"), 1);
}

TEST_F(StepLoopTest, EngineErrorKeepsItsType) {
  script_.before_step = [](int64_t step) {
    if (step == 3) throw EngineError(FailureReason::non_finite, "loss is nan", "cross_entropy", "logits", 3);
  };
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.result, AttemptResult::failed);
  EXPECT_EQ(outcome.reason, FailureReason::non_finite);
  EXPECT_EQ(outcome.error, "loss is nan");
  EXPECT_EQ(outcome.operation, "cross_entropy");
  EXPECT_EQ(outcome.tensor, "logits");
  EXPECT_EQ(outcome.step, 3);
  EXPECT_EQ(exit_code_of(outcome), 6);
  EXPECT_THAT(journal_steps(), ElementsAre(0, 1, 2));
}

TEST_F(StepLoopTest, EngineErrorWithoutAStepGetsTheCurrentOne) {
  script_.before_step = [](int64_t step) {
    if (step == 2) throw EngineError(FailureReason::plan_error, "no kernel");
  };
  EXPECT_EQ(run().step, 2);
}

TEST_F(StepLoopTest, ErrorBeforeTheFirstStepHasStepMinusOne) {
  hooks_.create = [](const RunConfig&, const TrainerOptions&) -> std::unique_ptr<Trainer> {
    throw EngineError(FailureReason::data_error, "data/corpus: no shards");
  };
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.reason, FailureReason::data_error);
  EXPECT_EQ(outcome.error, "data/corpus: no shards");
  EXPECT_EQ(outcome.step, -1);
  EXPECT_EQ(exit_code_of(outcome), 3);
}

TEST_F(StepLoopTest, BadAllocIsOutOfMemoryAndAnythingElseInternal) {
  script_.before_step = [](int64_t) { throw std::bad_alloc(); };
  EXPECT_EQ(run().reason, FailureReason::out_of_memory);
  script_.before_step = [](int64_t) { throw std::runtime_error("unforeseen"); };
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.reason, FailureReason::internal);
  EXPECT_EQ(outcome.error, "unforeseen");
  EXPECT_EQ(exit_code_of(outcome), 1);
}

TEST_F(StepLoopTest, AJournalThatCannotBeWrittenFailsTheRun) {
  options_.folder = AttemptFolder{temp_.path() + "/missing"};
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.reason, FailureReason::internal);
  EXPECT_THAT(outcome.error, HasSubstr("missing"));
}

class FaultTest : public StepLoopTest {
 protected:
  FaultTest() {
    options_.allow_faults = true;
    options_.config.fault.step = 2;
  }
};

TEST_F(FaultTest, IsRefusedUnlessAllowed) {
  options_.allow_faults = false;
  options_.config.fault.kind = FaultKind::crash;
  const AttemptOutcome outcome = run();
  EXPECT_EQ(outcome.reason, FailureReason::config_invalid);
  EXPECT_THAT(outcome.error, HasSubstr("fault.kind = \"crash\""));
  EXPECT_THAT(outcome.error, HasSubstr("--allow-fault-injection"));
  EXPECT_TRUE(lines_.empty());
}

TEST_F(FaultTest, TypedFaultsHappenBeforeTheStepIsWritten) {
  const std::pair<FaultKind, FailureReason> cases[] = {{FaultKind::plan_error, FailureReason::plan_error},
                                                       {FaultKind::out_of_memory, FailureReason::out_of_memory},
                                                       {FaultKind::non_finite, FailureReason::non_finite}};
  for (const auto& [kind, reason] : cases) {
    std::filesystem::remove(options_.folder->journal());
    options_.config.fault.kind = kind;
    const AttemptOutcome outcome = run();
    EXPECT_EQ(outcome.reason, reason) << to_string(kind);
    EXPECT_EQ(outcome.step, 2) << to_string(kind);
    EXPECT_THAT(journal_steps(), ElementsAre(0, 1)) << to_string(kind);
  }
}

TEST_F(FaultTest, DeadlyFaultsEndTheProcess) {
  for (const FaultKind kind : {FaultKind::crash, FaultKind::exit_code, FaultKind::stall}) {
    std::filesystem::remove(options_.folder->journal());
    options_.config.fault.kind = kind;
    try {
      run();
      ADD_FAILURE() << to_string(kind) << " did not happen";
    } catch (const Died& died) {
      EXPECT_EQ(died.kind, kind);
    }
    EXPECT_THAT(journal_steps(), ElementsAre(0, 1)) << to_string(kind);
  }
}

TEST_F(FaultTest, SparesLaterAttempts) {
  options_.config.fault.kind = FaultKind::crash;
  options_.attempt = 2;
  EXPECT_EQ(run().result, AttemptResult::completed);
  EXPECT_THAT(journal_steps(), ElementsAre(0, 1, 2, 3, 4));
}

TEST(FormatStep, ShowsTimeLeftAndValidation) {
  StepMetrics m;
  m.step = 9;
  m.loss = 4.5;
  m.dt_ms = 1000;
  m.tok_per_sec = 12345;
  m.mfu = 1.5;
  m.lr_scale = 1;
  m.grad_norm = 0.25;
  m.expert_load_min = 0.9;
  m.expert_load_max = 1.1;
  EXPECT_EQ(format_step(m, 3671, 1000),
            "step 9/3671 | loss 4.5000 | dt 1000.0 ms | tok/sec 12345 | mfu 1.50 % | lr 1.000 | grad 0.250 | "
            "load 0.90-1.10 | left 1:01:01");
  m.val_loss = 4.25;
  EXPECT_THAT(format_step(m, 3671, 1000), HasSubstr("| val 4.2500"));
}

}  // namespace
}  // namespace assay
