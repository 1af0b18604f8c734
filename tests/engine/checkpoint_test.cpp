#include "engine/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "engine/ops/error.h"
#include "tests/support/kill_points.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// The content of a checkpoint at `step`, all of it derived from the step, with its memory.
class Content {
 public:
  explicit Content(int64_t step) {
    value_.step = step;
    value_.config_hash = "hash";
    value_.weights = {tensor("wte", DType::f32, {4, 3}), tensor("head", DType::f32, {3, 4})};
    value_.optimizer = {tensor("wte.momentum", DType::bf16, {4, 3})};
    value_.state = {tensor("router.bias", DType::f32, {8}), tensor("amax", DType::f64, {2})};
    value_.scalars = {{"cursor", std::to_string(step * 4096)}, {"rng", "state \"of\" \\ the\ngenerator"}};
  }
  const CheckpointContent& value() const { return value_; }

 private:
  NamedTensor tensor(const std::string& name, DType dtype, std::initializer_list<int64_t> shape) {
    Tensor t(nullptr, dtype, shape);
    memory_.push_back(std::make_unique<char[]>(t.bytes()));
    t.data = memory_.back().get();
    for (size_t i = 0; i < t.bytes(); ++i)
      t.as<char>()[i] = static_cast<char>(value_.step * 31 + static_cast<int64_t>(i));
    return {name, t};
  }
  CheckpointContent value_;
  std::vector<std::unique_ptr<char[]>> memory_;
};

void expect_tensors(const std::vector<NamedTensor>& expected, const SafetensorsFile& file) {
  EXPECT_THAT(file.tensors, SizeIs(expected.size()));
  for (const NamedTensor& e : expected) {
    const Tensor* found = file.find(e.name);
    ASSERT_NE(found, nullptr) << e.name;
    ASSERT_EQ(found->bytes(), e.tensor.bytes()) << e.name;
    EXPECT_EQ(std::memcmp(found->data, e.tensor.data, e.tensor.bytes()), 0) << e.name;
  }
}

class CheckpointTest : public testing::Test {
 protected:
  std::string save(int64_t step, int keep = 2) { return save_checkpoint(path_, Content(step).value(), keep); }
  // The newest checkpoint must be whole and exactly that of its step; returns the step, -1 if there is none.
  int64_t newest(std::vector<std::string>* notes = nullptr) const {
    const auto loaded = load_newest_checkpoint(path_, notes);
    if (!loaded) return -1;
    const Content expected(loaded->step);
    expect_tensors(expected.value().weights, loaded->weights);
    expect_tensors(expected.value().optimizer, loaded->optimizer);
    expect_tensors(expected.value().state, loaded->state);
    EXPECT_EQ(loaded->scalars, expected.value().scalars);
    EXPECT_EQ(loaded->config_hash, "hash");
    return loaded->step;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path_)) found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }
  TempFolder folder_;
  std::string path_ = folder_.file("checkpoints");
};

TEST_F(CheckpointTest, ComesBackBitForBit) {
  EXPECT_EQ(newest(), -1);  // no folder yet
  const std::string saved = save(123);
  EXPECT_EQ(saved, path_ + "/step_000123");
  std::vector<std::string> notes;
  EXPECT_EQ(newest(&notes), 123);
  EXPECT_THAT(notes, IsEmpty());
  EXPECT_EQ(load_newest_checkpoint(path_, nullptr)->folder, saved);
}

TEST_F(CheckpointTest, KeepsTheNewest) {
  for (const int64_t step : {10, 20, 30}) save(step);
  EXPECT_THAT(names(), ElementsAre("step_000020", "step_000030"));
  EXPECT_EQ(newest(), 30);
  save(1'000'000, 1);
  EXPECT_THAT(names(), ElementsAre("step_1000000"));
  EXPECT_EQ(newest(), 1'000'000);
}

TEST_F(CheckpointTest, DamagedOnesDoNotCountAsKept) {
  save(10);
  save(20);
  fs::resize_file(path_ + "/step_000020/weights.safetensors", 100);
  save(30);
  EXPECT_THAT(names(), ElementsAre("step_000010", "step_000030"));
}

TEST_F(CheckpointTest, SavingAStepAgainReplacesIt) {
  save(10);
  EXPECT_EQ(save(10), path_ + "/step_000010.2");
  EXPECT_THAT(names(), ElementsAre("step_000010.2"));
  EXPECT_EQ(newest(), 10);
  EXPECT_EQ(save(10), path_ + "/step_000010.3");
}

TEST_F(CheckpointTest, AnEarlierStepSupersedesLaterOnes) {
  save(10);
  save(30);
  save(20);  // training went back: what came after step 20 is not of this course
  EXPECT_THAT(names(), ElementsAre("step_000010", "step_000020"));
  EXPECT_EQ(newest(), 20);
}

// A queue whose database was deleted gives a run the folder of one that it does not know any longer.
TEST_F(CheckpointTest, OthersCheckpointsAreNeitherResumedNorRemovedNorCounted) {
  const auto save_as = [&](int64_t step, const CheckpointOwner& owner) {
    Content content(step);
    CheckpointContent value = content.value();
    value.owner = owner;
    return save_checkpoint(path_, value);
  };
  const auto newest_of = [&](const CheckpointOwner& owner, std::vector<std::string>* notes) -> int64_t {
    const auto loaded = load_newest_checkpoint(path_, notes, owner);
    return loaded ? loaded->step : -1;
  };
  save_as(20, {"store-a/1/1/5", {}});
  save(30);  // by hand
  std::vector<std::string> notes;
  const CheckpointOwner first{"store-b/1/1/9", {}}, second{"store-b/1/2/11", {"store-b/1/1/9"}};
  EXPECT_EQ(newest_of(first, &notes), -1);
  ASSERT_THAT(notes, SizeIs(2));
  EXPECT_THAT(notes[0], HasSubstr("step_000030: it is no checkpoint of this run: it does not say which attempt"));
  EXPECT_THAT(notes[1], HasSubstr("step_000020: it is no checkpoint of this run: it was saved by store-a/1/1/5"));
  for (const int64_t step : {5, 10, 15}) save_as(step, first);
  EXPECT_EQ(save_as(20, first), path_ + "/step_000020.2");
  EXPECT_THAT(names(), ElementsAre("step_000015", "step_000020", "step_000020.2", "step_000030"));
  EXPECT_EQ(newest_of(second, nullptr), 20);
  save_as(18, second);  // supersedes what its own earlier attempt made of later steps
  EXPECT_THAT(names(), ElementsAre("step_000015", "step_000018", "step_000020", "step_000030"));
  EXPECT_EQ(newest_of(second, nullptr), 18);
  EXPECT_EQ(newest_of({"store-a/1/2/6", {"store-a/1/1/5"}}, nullptr), 20) << "who comes back finds its own";
  EXPECT_EQ(newest_of({"store-b/1/3/12", {"store-b/1/1/9", ""}}, nullptr), 30) << "a run of before there were keys";
  EXPECT_EQ(newest(), 30) << "whoever trains by hand chose the folder";
}

TEST_F(CheckpointTest, LeftoversAndStrangersAreNotCheckpoints) {
  save(10);
  fs::create_directories(path_ + "/step_000020.tmp");
  fs::create_directories(path_ + "/step_20");
  fs::create_directories(path_ + "/step_000030.x");
  fs::create_directories(path_ + "/notes");
  std::vector<std::string> notes;
  EXPECT_EQ(newest(&notes), 10);
  EXPECT_THAT(notes, IsEmpty());
  save(20);
  EXPECT_THAT(names(), ElementsAre("notes", "step_000010", "step_000020", "step_000030.x", "step_20"));
}

TEST_F(CheckpointTest, AKillAtAnyPointOfASaveLeavesAWholeCheckpoint) {
  bool seen_old = false, seen_new = false;
  save(10, 1);
  save(20, 2);
  const std::string before = folder_.file("before");
  fs::copy(path_, before, fs::copy_options::recursive);
  const int kills = kill_at_every_point({
      .set_up =
          [&] {
            fs::remove_all(path_);
            fs::copy(before, path_, fs::copy_options::recursive);
          },
      .work = [&] { return save(30, 1) == path_ + "/step_000030"; },
      .verify =
          [&](const KillPoint& point) {
            SCOPED_TRACE(point.describe());
            std::vector<std::string> notes;
            const int64_t step = newest(&notes);
            EXPECT_TRUE(step == 20 || step == 30) << step;
            EXPECT_THAT(notes, IsEmpty());  // and no half of one under a checkpoint's name
            (step == 20 ? seen_old : seen_new) = true;
            if (point.torn) return;
            save(40, 1);  // a killed save does not stand in the way of the next
            EXPECT_THAT(names(), ElementsAre("step_000040"));
            EXPECT_EQ(newest(), 40);
          },
  });
  if (kills < 0) GTEST_SKIP() << "this system does not allow tracing a child process";
  EXPECT_GT(kills, 30);
  EXPECT_TRUE(seen_old && seen_new);
}

TEST_F(CheckpointTest, AKillWhileAStepIsSavedAgainLeavesOneOfBoth) {
  save(10);
  const std::string before = folder_.file("before");
  fs::copy(path_, before, fs::copy_options::recursive);
  const int kills = kill_at_every_point({
      .set_up =
          [&] {
            fs::remove_all(path_);
            fs::copy(before, path_, fs::copy_options::recursive);
          },
      .work = [&] { return save(10, 1) == path_ + "/step_000010.2"; },
      .verify =
          [&](const KillPoint& point) {
            SCOPED_TRACE(point.describe());
            EXPECT_EQ(newest(), 10);
          },
  });
  if (kills < 0) GTEST_SKIP() << "this system does not allow tracing a child process";
  EXPECT_GT(kills, 30);
}

class DamagedCheckpointTest : public CheckpointTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    save(10);
    save(20);
    file_ = path_ + "/step_000020/" + GetParam();
    whole_ = read_file(file_).value();
  }
  // Loads step 10 instead, and says why.
  void expect_skipped() {
    std::vector<std::string> notes;
    EXPECT_EQ(newest(&notes), 10);
    ASSERT_THAT(notes, SizeIs(1));
    EXPECT_THAT(notes[0], HasSubstr("skipped checkpoint " + path_ + "/step_000020: "));
  }
  std::string file_, whole_;
};

TEST_P(DamagedCheckpointTest, EveryTruncationIsSkipped) {
  // The manifest's last byte is a line's end that means nothing.
  const size_t end = std::string(GetParam()) == "manifest.json" ? whole_.size() - 1 : whole_.size();
  for (size_t size = 0; size < end; ++size) {
    SCOPED_TRACE(size);
    put_file(file_, whole_.substr(0, size));
    expect_skipped();
  }
}

TEST_P(DamagedCheckpointTest, EveryFlippedByteIsSkippedOrMeansNothing) {
  for (size_t at = 0; at < whole_.size(); ++at) {
    SCOPED_TRACE(at);
    std::string bad = whole_;
    bad[at] ^= 0x01;
    put_file(file_, bad);
    std::vector<std::string> notes;
    const int64_t step = newest(&notes);  // compares the whole content
    if (std::isspace(static_cast<unsigned char>(whole_[at])) && notes.empty()) {
      EXPECT_EQ(step, 20);  // the manifest's layout
    } else {
      EXPECT_EQ(step, 10);
      EXPECT_THAT(notes, SizeIs(1));
    }
  }
}

TEST_P(DamagedCheckpointTest, AMissingFileIsSkipped) {
  fs::remove(file_);
  expect_skipped();
}

INSTANTIATE_TEST_SUITE_P(Files, DamagedCheckpointTest,
                         testing::Values("weights.safetensors", "optimizer.safetensors", "state.safetensors",
                                         "manifest.json"),
                         [](const auto& info) {
                           return std::string(info.param).substr(0, std::string(info.param).find('.'));
                         });

TEST_F(CheckpointTest, AFileOfAnotherCheckpointIsSkipped) {
  save(10);
  save(20);
  fs::copy_file(path_ + "/step_000010/weights.safetensors", path_ + "/step_000020/weights.safetensors",
                fs::copy_options::overwrite_existing);
  fs::rename(path_ + "/step_000010", path_ + "/step_000040");
  std::vector<std::string> notes;
  EXPECT_EQ(newest(&notes), -1);
  ASSERT_THAT(notes, SizeIs(2));
  EXPECT_THAT(notes[0], HasSubstr("step_000040: its manifest is of step 10"));
  EXPECT_THAT(notes[1], HasSubstr("weights.safetensors does not match the size and CRC-32 in the manifest"));
}

// The file-size limit of the process stands in for a full disk.
TEST_F(CheckpointTest, AFullDiskIsAnErrorThatLeavesThePreviousOne) {
  save(10);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{200, 200};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(1);
    try {
      save(20);
    } catch (const EngineError& e) {
      ::_exit(std::string(e.what()) == "cannot write " + path_ + "/step_000020.tmp/weights.safetensors: File too large"
                  ? 0
                  : 3);
    }
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "exit code " << WEXITSTATUS(status);
  EXPECT_THAT(names(), ElementsAre("step_000010"));
  EXPECT_EQ(newest(), 10);
}

TEST_F(CheckpointTest, AFolderThatCannotBeIsNamed) {
  put_file(path_, "a file");
  EXPECT_THAT([&] { save(10); }, testing::ThrowsMessage<EngineError>(HasSubstr(path_ + " exists and is not a folder")));
  EXPECT_THAT([&] { newest(); },
              testing::ThrowsMessage<EngineError>(HasSubstr("cannot read checkpoint folder " + path_)));
}

TEST_F(CheckpointTest, AScalarThatIsNotTextIsAnErrorThatLeavesNothing) {
  const Content memory(10);
  CheckpointContent content = memory.value();
  content.scalars["rng"] = "\xFF";
  EXPECT_THROW(save_checkpoint(path_, content), EngineError);
  EXPECT_THAT(names(), IsEmpty());
}

}  // namespace
}  // namespace assay
