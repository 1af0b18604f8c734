#include "worker/attempt_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/limits.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class AttemptLogTest : public testing::Test {
 protected:
  void append(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }
  std::string content() { return *read_file(path_); }
  TempFolder temp_;
  std::string path_ = temp_.path() + "/trainer.log";
};

TEST_F(AttemptLogTest, ShortLogIsLeftAlone) {
  append(std::string(110, 'x'));
  ASSERT_TRUE(cap_log(path_, 100, 10).ok());
  EXPECT_EQ(content(), std::string(110, 'x'));
}

TEST_F(AttemptLogTest, MissingLogIsNoError) {
  EXPECT_TRUE(cap_log(path_, 100, 10).ok());
}

TEST_F(AttemptLogTest, LongLogKeepsItsBeginningAndItsLastLinesAndSaysSo) {
  append("first line\n" + std::string(20'000, 'x') + "\nlast line\n");
  ASSERT_TRUE(cap_log(path_, 1000, 10).ok());
  EXPECT_THAT(content(), StartsWith("first line\nxxx"));
  EXPECT_THAT(content(), HasSubstr("the log passed its limit of 1000 bytes; 19012 bytes were cut here"));
  EXPECT_THAT(content(), EndsWith("\nlast line\n"));
  append("next line\n");
  EXPECT_THAT(content(), EndsWith("last line\nnext line\n")) << "training goes on";
}

TEST_F(AttemptLogTest, CutAgainAndAgainItStaysBounded) {
  for (int i = 0; i < 50; ++i) {
    append(std::string(3000, 'x') + "\n");
    ASSERT_TRUE(cap_log(path_, 10'000, 5'000).ok());
    EXPECT_LE(content().size(), 15'000 + limits::log_tail_bytes);
  }
}

TEST_F(AttemptLogTest, WhatCannotBeCutIsNamed) {
  std::filesystem::create_directory(path_);
  const Status capped = cap_log(path_, 1, 1);
  ASSERT_FALSE(capped.ok());
  EXPECT_THAT(capped.error().message, HasSubstr(path_));
}

TEST_F(AttemptLogTest, TailBeginsAtALine) {
  EXPECT_EQ(log_tail(path_, 10), "");
  append("one\ntwo\nthree\n");
  EXPECT_EQ(log_tail(path_, 100), "one\ntwo\nthree\n");
  EXPECT_EQ(log_tail(path_, 9), "three\n");
  append(std::string(50, 'y'));
  EXPECT_EQ(log_tail(path_, 20), std::string(20, 'y')) << "one long line: its end is better than nothing";
}

}  // namespace
}  // namespace assay
