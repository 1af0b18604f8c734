#include <gmock/gmock.h>

#include <filesystem>

#include "base/file.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/shard.h"
#include "spec/run_config_toml.h"
#include "tests/support/paths.h"
#include "trainer_fixture.h"

namespace assay::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct ResumeCase {
  const char* name;
  Precision precision;
  Fp8Recipe recipe = Fp8Recipe::tensorwise;
  Execution execution = Execution::dynamic_graph;
};
void PrintTo(const ResumeCase& c, std::ostream* out) {
  *out << c.name;
}

class ResumeTest : public TrainerTest, public ::testing::WithParamInterface<ResumeCase> {};

TEST_P(ResumeTest, ContinuesBitForBit) {
  RunConfig c = config(GetParam().precision);
  c.fp8.recipe = GetParam().recipe;
  c.execution = GetParam().execution;
  if (c.fp8.recipe == Fp8Recipe::blockwise) c.model.d_model = 128;
  TemporaryFolder checkpoints;
  const TrainerOptions options{checkpoints.path()};
  RunTrainer whole(c, {}, Backend::cpu, make_cpu_ops(), 0, 1);
  const auto expected = train(whole, 6);
  {
    const auto first = Trainer::create(c, options);
    train(*first, 3);
    first->save_checkpoint();
  }
  RunTrainer second(c, options, Backend::cpu, make_cpu_ops(), 0, 1);
  EXPECT_EQ(second.resumed_from_step(), 3);
  EXPECT_THAT(second.notes(), Contains(StartsWith("resumed at step 3 from " + checkpoints.path())));
  const auto resumed = train(second, 6);
  ASSERT_EQ(resumed.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(resumed[i].step, expected[i + 3].step);
    EXPECT_EQ(resumed[i].loss, expected[i + 3].loss);
    EXPECT_EQ(resumed[i].grad_norm, expected[i + 3].grad_norm);
    EXPECT_EQ(resumed[i].expert_load_max, expected[i + 3].expert_load_max);
    EXPECT_EQ(resumed[i].tokens, expected[i + 3].tokens);
    EXPECT_EQ(resumed[i].flops, expected[i + 3].flops);
  }
  for (size_t p = 0; p < whole.model().weights().all().size(); ++p) {
    const Weight &a = whole.model().weights().all()[p], &b = second.model().weights().all()[p];
    EXPECT_EQ(read<float>(whole.ops(), a.master), read<float>(second.ops(), b.master)) << a.spec.name;
    EXPECT_EQ(read<float>(whole.ops(), a.moment2), read<float>(second.ops(), b.moment2)) << a.spec.name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Precisions, ResumeTest,
    ::testing::Values(ResumeCase{"fp32", Precision::fp32}, ResumeCase{"bf16", Precision::bf16},
                      ResumeCase{"fp8_noexperts_tensorwise", Precision::fp8_noexperts},
                      ResumeCase{"fp8_experts_tensorwise", Precision::fp8_experts},
                      ResumeCase{"fp8_experts_rowwise", Precision::fp8_experts, Fp8Recipe::rowwise},
                      ResumeCase{"fp8_experts_blockwise", Precision::fp8_experts, Fp8Recipe::blockwise},
                      ResumeCase{"bf16_eager", Precision::bf16, Fp8Recipe::tensorwise, Execution::eager},
                      ResumeCase{"bf16_static", Precision::bf16, Fp8Recipe::tensorwise, Execution::static_graph}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(TrainerTest, RefusesToResumeUnderAnotherConfig) {
  TemporaryFolder checkpoints;
  RunConfig c = config();
  {
    const auto trainer = Trainer::create(c, {checkpoints.path()});
    trainer->step();
    trainer->save_checkpoint();
  }
  c.train.matrix_lr = 0.01;
  const EngineError e = error_of(c, {checkpoints.path()});
  EXPECT_EQ(e.reason, FailureReason::config_invalid);
  EXPECT_THAT(e.what(), AllOf(HasSubstr(checkpoints.path()), HasSubstr("belongs to another config")));
  EXPECT_EQ(Trainer::create(c, {checkpoints.path(), /*resume=*/false})->resumed_from_step(), -1);
}

TEST_F(TrainerTest, ResumesWhatItsOwnEarlierAttemptsSavedAndSaysWhatItLeaves) {
  TemporaryFolder checkpoints;
  const RunConfig c = config();
  const auto options = [&](CheckpointOwner owner) {
    TrainerOptions o{checkpoints.path()};
    o.owner = std::move(owner);
    return o;
  };
  const auto forgotten = Trainer::create(c, options({"old/1/1/1", {}}));
  train(*forgotten, 4);
  forgotten->save_checkpoint();
  const auto first = Trainer::create(c, options({"new/1/1/2", {}}));
  EXPECT_EQ(first->resumed_from_step(), -1);
  EXPECT_THAT(first->notes(), Contains(AllOf(StartsWith("skipped checkpoint "), HasSubstr("saved by old/1/1/1"))));
  train(*first, 2);
  first->save_checkpoint();
  EXPECT_EQ(Trainer::create(c, options({"new/1/2/3", {"new/1/1/2"}}))->resumed_from_step(), 2);
  EXPECT_EQ(Trainer::create(c, options({}))->resumed_from_step(), 4);
}

// A checkpoint of the first version (tests/fixtures), and the steps that followed it then.
TEST_F(TrainerTest, GoesOnFromACheckpointOfTheFirstVersion) {
  const std::string fixture = source_dir() + "/tests/fixtures/home_1";
  const RunConfigResult parsed = parse_run_config(read_file(fixture + "/checkpoint/run.toml").value(), "run.toml");
  ASSERT_TRUE(parsed.errors.empty()) << parsed.errors.front().to_string();
  TemporaryFolder work;
  std::filesystem::create_directories(work.path() + "/data");
  const auto shard = [&](const char* name, size_t count) {
    std::vector<uint16_t> tokens(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<uint16_t>(i * 7 % 60);
    ASSERT_TRUE(write_shard(work.path() + "/data/" + name, tokens).ok());
  };
  shard("tiny_train_000001.bin", 40'000);
  shard("tiny_val_000000.bin", 8'000);
  // The path of the corpus is part of a config; this one's is relative.
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(work.path());
  const auto trainer = Trainer::create(parsed.config, {fixture + "/checkpoint"});
  std::filesystem::current_path(before);
  EXPECT_EQ(trainer->resumed_from_step(), 8);
  const std::string steps_csv = read_file(fixture + "/steps.csv").value();
  for (const StepMetrics& m : train(*trainer, 12)) {
    const std::string start = "\na,1," + std::to_string(m.step) + ",";
    const size_t at = steps_csv.find(start);
    ASSERT_NE(at, std::string::npos);
    // Another processor rounds otherwise.
    EXPECT_NEAR(m.loss, std::stod(steps_csv.substr(at + start.size())), 1e-3) << m.step;
    EXPECT_EQ(m.tokens, (m.step + 1) * 128);
  }
}

// A run of one step, saved.
void save_one_step(const RunConfig& c, const std::string& checkpoints) {
  const auto trainer = Trainer::create(c, {checkpoints});
  trainer->step();
  trainer->save_checkpoint();
}

TEST_F(TrainerTest, RefusesToResumeOnACorpusThatWasPreparedAnew) {
  TemporaryFolder checkpoints;
  RunConfig c = config();
  c.train.val_every = 10;
  save_one_step(c, checkpoints.path());
  EXPECT_EQ(Trainer::create(c, {checkpoints.path()})->resumed_from_step(), 1);

  const auto refused = [&](const std::string& change) {
    const EngineError e = error_of(c, {checkpoints.path()});
    EXPECT_EQ(e.reason, FailureReason::data_error);
    EXPECT_THAT(e.what(), AllOf(HasSubstr(checkpoints.path() + "/step_000001 has seen other text than " + data_.path()),
                                HasSubstr(change), HasSubstr("put that text back"),
                                HasSubstr("remove the folder " + checkpoints.path())));
  };
  write_shards(data_.path(), random_corpus(4000, 67, "other"), random_corpus(1200, 67, "val"));  // as long as before
  refused("text_train_000001.bin is another (4000 tokens, CRC-32 ");
  write_shards(data_.path(), random_corpus(4000, 67, "train"), random_corpus(1201, 67, "val"));
  refused("text_val_000000.bin is another (1201 tokens, CRC-32 ");
  write_shards(data_.path(), random_corpus(4000, 67, "train"), random_corpus(1200, 67, "val"));
  ASSERT_TRUE(write_shard(data_.path() + "/text_train_000002.bin", {1, 2, 3}).ok());
  refused("text_train_000002.bin is new");
  std::filesystem::rename(data_.path() + "/text_train_000002.bin", data_.path() + "/notes");
  std::filesystem::rename(data_.path() + "/text_train_000001.bin", data_.path() + "/a_train.bin");
  refused("text_train_000001.bin is gone, a_train.bin is new");
  std::filesystem::rename(data_.path() + "/a_train.bin", data_.path() + "/text_train_000001.bin");
  EXPECT_EQ(Trainer::create(c, {checkpoints.path()})->resumed_from_step(), 1);  // the old text is back
}

TEST_F(TrainerTest, OnlyTheTextThatARunReadsMustBeTheSame) {
  TemporaryFolder checkpoints;
  RunConfig c = config();
  c.train.val_every = 0;
  save_one_step(c, checkpoints.path());
  write_shards(data_.path(), random_corpus(4000, 67, "train"), random_corpus(999, 67, "other"));
  EXPECT_EQ(Trainer::create(c, {checkpoints.path()})->resumed_from_step(), 1);
}

CheckpointContent content_of(const LoadedCheckpoint& loaded) {
  return {.step = loaded.step,
          .config_hash = loaded.config_hash,
          .weights = loaded.weights.tensors,
          .optimizer = loaded.optimizer.tensors,
          .state = loaded.state.tensors,
          .scalars = loaded.scalars};
}

// Checkpoints of before shards were recorded: no refusal, but a line in the log.
TEST_F(TrainerTest, SaysThatAnOldCheckpointDoesNotNameItsText) {
  TemporaryFolder checkpoints;
  RunConfig c = config();
  save_one_step(c, checkpoints.path());
  std::vector<std::string> notes;
  const auto found = load_newest_checkpoint(checkpoints.path(), &notes);
  ASSERT_TRUE(found.has_value());
  const auto save_as = [&](const std::string& position) {
    CheckpointContent old = content_of(*found);
    std::erase_if(old.scalars, [](const auto& scalar) { return scalar.first.starts_with("corpus/"); });
    old.scalars["loader.position"] = position;
    save_checkpoint(checkpoints.path(), old);
  };
  save_as(found->scalars.at("loader.position"));
  const auto resumed = Trainer::create(c, {checkpoints.path()});
  EXPECT_EQ(resumed->resumed_from_step(), 1);
  EXPECT_THAT(resumed->notes(), Contains(HasSubstr("does not say which text it has seen")));
  save_as("3999");  // no micro-batch of this corpus begins there
  const EngineError e = error_of(c, {checkpoints.path()});
  EXPECT_EQ(e.reason, FailureReason::data_error);
  EXPECT_THAT(e.what(), HasSubstr("stands at token 3999 of its text, but " + data_.path() + " holds 4000"));
}

TEST_F(TrainerTest, SaysThatAnotherBackendSavedTheCheckpoint) {
  TemporaryFolder checkpoints;
  const RunConfig c = config();
  save_one_step(c, checkpoints.path());
  EXPECT_THAT(Trainer::create(c, {checkpoints.path()})->notes(), Not(Contains(HasSubstr("was saved on the"))));
  std::vector<std::string> notes;
  const auto found = load_newest_checkpoint(checkpoints.path(), &notes);
  ASSERT_TRUE(found.has_value());
  CheckpointContent other = content_of(*found);
  other.scalars["backend"] = "cuda";
  save_checkpoint(checkpoints.path(), other);
  EXPECT_THAT(Trainer::create(c, {checkpoints.path()})->notes(),
              Contains(HasSubstr("was saved on the cuda backend and goes on on the cpu backend")));
}

TEST_F(TrainerTest, SavingWithoutAFolderIsAnError) {
  const auto trainer = Trainer::create(config(), {});
  EXPECT_THROW(trainer->save_checkpoint(), EngineError);
}

TEST_F(StaticTest, ResumesWithTheCapacityItHadGrownTo) {
  const RunConfig c = tight();
  TemporaryFolder checkpoints;
  const auto whole = Trainer::create(c, {checkpoints.path()});
  train(*whole, 2);
  whole->save_checkpoint();
  const auto resumed = Trainer::create(c, {checkpoints.path()});
  EXPECT_GT(resumed->plan().static_capacity, 256);
  EXPECT_EQ(resumed->plan().static_capacity, whole->plan().static_capacity);
  const auto a = train(*whole, 4), b = train(*resumed, 4);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(a[i].loss, b[i].loss);
  EXPECT_EQ(whole->notes().back(), resumed->notes().back());
}

}  // namespace
}  // namespace assay::testing
