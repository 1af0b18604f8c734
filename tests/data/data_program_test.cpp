// The program assay-data, as a shell runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/process.h"
#include "tests/support/paths.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class DataProgramTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * 7919 % 1000) + " of some text\n";
    put_file(folder_.file("a.txt"), text);
    put_file(folder_.file("b.txt"), text);
  }
  // Runs `assay-data <arguments>` in the folder, by a shell; output_ gets both streams.
  int run(const std::string& arguments, const std::string& before = "") {
    const std::string log = folder_.file("log");
    std::filesystem::remove(log);
    const auto pid =
        spawn({.program = "/bin/sh",
               .arguments = {"-c", "cd " + folder_.path() + " && " + before + bin_dir() + "/assay-data " + arguments},
               .output_path = log});
    EXPECT_TRUE(pid.ok()) << pid.error().message;
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(*pid), &info, WEXITED | WNOWAIT);
    output_ = read_file(log).value();
    return try_wait(*pid).value().exit_code;
  }
  bool exists(const std::string& name) const { return std::filesystem::exists(folder_.file(name)); }

  TempFolder folder_;
  std::string output_;
};

TEST_F(DataProgramTest, AMistypedVerbIsAnsweredWithTheNearest) {
  EXPECT_EQ(run("data prepair a.txt -o c"), 2);
  EXPECT_EQ(output_, "assay: there is no verb 'data prepair'; did you mean 'data prepare'?\n");
  EXPECT_EQ(run("data frobnicate"), 2);
  EXPECT_EQ(output_, "assay: there is no verb 'data frobnicate'; `assay data --help` lists them\n");
  EXPECT_EQ(run("data"), 2);
  EXPECT_THAT(output_, StartsWith("assay: data: no verb given"));
  EXPECT_EQ(run("data prepare -o c"), 2);
  EXPECT_THAT(output_, StartsWith("assay: data prepare: INPUT is required"));
}

TEST_F(DataProgramTest, AnOutputThatCannotBeWrittenIsAnError) {
  for (const std::string json : {"", "--json "}) {
    EXPECT_EQ(run(json + "data prepare a.txt b.txt -o c --vocab-size 300 >/dev/full"), 7);
    EXPECT_THAT(output_,
                HasSubstr("cannot write to standard output: No space left on device; the corpus itself is whole in c"));
    EXPECT_TRUE(exists("c/corpus.json"));
  }
  EXPECT_EQ(run("data prepare --help >/dev/full"), 7);
  EXPECT_EQ(output_, "assay: cannot write to standard output: No space left on device\n");
}

TEST_F(DataProgramTest, JsonIsWhatCorpusJsonSays) {
  ASSERT_EQ(run("--json data prepare a.txt b.txt -o c --vocab-size 300 2>/dev/null"), 0) << output_;
  auto answer = nlohmann::json::parse(output_);
  auto corpus = nlohmann::json::parse(read_file(folder_.file("c/corpus.json")).value());
  EXPECT_EQ(answer["folder"], "c");
  for (const auto& file : answer["files"]) EXPECT_TRUE(std::filesystem::path(file.get<std::string>()).is_absolute());
  answer.erase("folder");
  answer.erase("files");
  corpus.erase("files");
  EXPECT_EQ(answer, corpus);
}

// The library dies inside a call, here of the kernel's limit on processor time: one line, and nothing stays behind.
TEST_F(DataProgramTest, ACrashInTheLibraryIsAnErrorThatLeavesNothing) {
  std::string noise;
  uint32_t state = 1;
  while (noise.size() < 4'000'000)
    noise += static_cast<char>('!' + ((state = state * 1664525 + 1013904223) >> 16) % 90);
  put_file(folder_.file("noise.txt"), noise);
  ASSERT_EQ(run("data prepare a.txt b.txt -o c --vocab-size 300"), 0);
  const std::string before = read_file(folder_.file("c/corpus.json")).value();
  EXPECT_EQ(run("data prepare noise.txt -o c --vocab-size 20000", "ulimit -S -t 1; "), 8);
  EXPECT_THAT(
      output_,
      HasSubstr(
          "\nassay: data prepare was ended by SIGXCPU (CPU time limit exceeded); nothing was written. Most likely"));
  EXPECT_EQ(std::count(output_.begin(), output_.end(), '\n'), 3);  // two lines of progress, one error
  EXPECT_FALSE(exists("c.preparing"));
  EXPECT_EQ(read_file(folder_.file("c/corpus.json")).value(), before);
}

}  // namespace
}  // namespace assay
