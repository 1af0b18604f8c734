#include "engine/data/corpus_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/limits.h"
#include "model_fixture.h"

namespace assay {
namespace {

using ::testing::HasSubstr;

class CorpusCheckTest : public ::testing::Test {
 protected:
  CorpusCheckTest() {
    config_.model.sequence_len = 8;
    config_.model.vocab_size = 100;
    config_.train.device_batch = 2;
    config_.train.val_every = 1;
  }
  void shard(const std::string& name, std::vector<uint16_t> tokens) {
    ASSERT_TRUE(write_shard(folder_.path() + "/" + name, tokens).ok());
  }
  void manifest(const std::string& text) { std::ofstream(folder_.path() + "/corpus.json") << text; }
  std::string problem() const {
    const auto facts = look_at_corpus(folder_.path());
    return facts.ok() ? corpus_problem(config_, *facts).value_or("") : facts.error().message;
  }
  testing::TemporaryFolder folder_;
  RunConfig config_;
};

TEST_F(CorpusCheckTest, AllTokensOfASmallCorpusAreLookedAt) {
  std::vector<uint16_t> tokens(3'000'000, 5);  // more than the loader looks at before the first step
  shard("a_train_1.bin", tokens);
  shard("a_val_0.bin", std::vector<uint16_t>(50, 5));
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(describe(*look_at_corpus(folder_.path())),
            folder_.path() + ": 3000000 training tokens, 50 of validation, largest token 5 (all looked at)");
  tokens.back() = 100;
  shard("a_train_1.bin", tokens);
  EXPECT_THAT(problem(), HasSubstr("a_train_1.bin holds token 100; set model.vocab_size to at least 101"));
  config_.model.vocab_size = 101;
  EXPECT_EQ(problem(), "");
  shard("a_val_0.bin", std::vector<uint16_t>(50, 300));
  EXPECT_THAT(problem(), HasSubstr("a_val_0.bin holds token 300"));
  config_.train.val_every = 0;
  EXPECT_EQ(problem(), "") << "validation text that is not read";
}

// Of a corpus too large to be looked at whole, its tokenizer's size says what it may hold.
TEST_F(CorpusCheckTest, ALargeCorpusIsJudgedByItsTokenizerToo) {
  const size_t tokens = limits::scanned_corpus_bytes / sizeof(uint16_t) + 1000;
  config_.train.val_every = 0;
  shard("a_train_1.bin", std::vector<uint16_t>(tokens, 5));
  EXPECT_EQ(problem(), "");
  EXPECT_THAT(describe(*look_at_corpus(folder_.path())), HasSubstr("largest token 5 (of the 33554432 looked at)"));
  manifest(R"({"vocab_size": 101})");
  EXPECT_THAT(problem(), HasSubstr("model.vocab_size = 100, but " + folder_.path() +
                                   " was prepared with a vocabulary of "
                                   "101"));
  config_.model.vocab_size = 101;
  EXPECT_EQ(problem(), "");
  config_.model.vocab_size = 100;
  for (const char* foreign : {"", "[]", "{\"vocab_size\": \"many\"}", "{"}) {
    manifest(foreign);
    EXPECT_EQ(problem(), "") << foreign;
  }
}

TEST_F(CorpusCheckTest, TooLittleTextIsNamedByWhatItIsFor) {
  shard("a_train_1.bin", std::vector<uint16_t>(16, 5));
  EXPECT_THAT(problem(),
              HasSubstr("holds 16 training tokens, but one micro-batch needs 17 (devices * train.device_batch * "
                        "model.sequence_len = 1 * 2 * 8"));
  shard("a_train_1.bin", std::vector<uint16_t>(17, 5));
  EXPECT_THAT(problem(), HasSubstr("needs validation shards"));
  shard("a_val_0.bin", std::vector<uint16_t>(16, 5));
  EXPECT_THAT(problem(), HasSubstr("the validation text of " + folder_.path() + " has 16 tokens"));
  shard("a_val_0.bin", std::vector<uint16_t>(17, 5));
  EXPECT_EQ(problem(), "");
}

}  // namespace
}  // namespace assay
