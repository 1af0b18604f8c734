#include "engine/data/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;

std::string little_endian(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

// A shard as llm.c's data scripts write it, made without the code under test.
std::string llmc_shard(const std::vector<uint16_t>& tokens, uint32_t magic = 20240520, uint32_t version = 1) {
  std::string bytes =
      little_endian(magic) + little_endian(version) + little_endian(static_cast<uint32_t>(tokens.size()));
  bytes.resize(256 * 4, '\0');
  for (const uint16_t t : tokens) {
    bytes += static_cast<char>(t);
    bytes += static_cast<char>(t >> 8);
  }
  return bytes;
}

class ShardTest : public testing::Test {
 protected:
  std::string put(const std::string& name, const std::string& bytes) {
    const std::string path = folder_.file(name);
    put_file(path, bytes);
    return path;
  }
  void expect_refused(const std::string& bytes, const std::string& why) {
    const std::string path = put("bad.bin", bytes);
    const auto shard = open_shard(path);
    ASSERT_FALSE(shard.ok()) << why;
    EXPECT_EQ(shard.error().code, ErrorCode::data_loss);
    EXPECT_THAT(shard.error().message, HasSubstr(path + " is not a usable token shard: " + why));
  }
  TempFolder folder_;
};

TEST_F(ShardTest, ReadsAShardMadeForLlmC) {
  const auto shard = open_shard(put("fineweb_train_000001.bin", llmc_shard({1, 2, 50256})));
  ASSERT_TRUE(shard.ok()) << shard.error().message;
  EXPECT_EQ(shard->tokens, 3);
}

TEST_F(ShardTest, WritesWhatLlmCReads) {
  const std::vector<uint16_t> tokens = {0, 1, 256, 65535};
  const std::string path = folder_.file("corpus_train_000001.bin");
  ASSERT_TRUE(write_shard(path, tokens).ok());
  EXPECT_EQ(read_file(path).value(), llmc_shard(tokens));
}

TEST_F(ShardTest, SaysWhatIsWrongWithADamagedShard) {
  const std::string good = llmc_shard({1, 2, 3});
  expect_refused("", "it has 0 bytes, less than the header of 1024");
  expect_refused(good.substr(0, 1023), "it has 1023 bytes, less than the header of 1024");
  expect_refused(llmc_shard({1}, 20240521), "its magic number is 20240521, but llm.c token shards begin with 20240520");
  expect_refused(llmc_shard({1}, 20240520, 7), "its version is 7, but only version 1 (uint16 tokens) is read");
  expect_refused(good.substr(0, good.size() - 1), "its size of 1029 bytes is not even: it ends within a token");
  expect_refused(good.substr(0, good.size() - 2), "its header says 3 tokens, but the file holds 2: it is truncated");
  expect_refused(good + "xx", "its header says 3 tokens, but the file holds 4");
  std::string negative = good;
  negative.replace(8, 4, "\xFF\xFF\xFF\xFF");
  expect_refused(negative, "its header says -1 tokens, but the file holds 3");
}

TEST_F(ShardTest, RefusesWhatIsNotARegularFile) {
  std::filesystem::create_directory(folder_.file("folder.bin"));
  EXPECT_THAT(open_shard(folder_.file("folder.bin")).error().message, HasSubstr("it is not a regular file"));
  ASSERT_EQ(::mkfifo(folder_.file("fifo.bin").c_str(), 0600), 0);
  EXPECT_THAT(open_shard(folder_.file("fifo.bin")).error().message, HasSubstr("it is not a regular file"));
  const auto missing = open_shard(folder_.file("missing.bin"));
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_THAT(missing.error().message, HasSubstr("cannot open token shard " + folder_.file("missing.bin")));
}

TEST_F(ShardTest, ACorpusIsItsShardsByKindInTheOrderOfTheirNames) {
  put("web_train_000002.bin", llmc_shard({3, 4, 5}));
  put("web_train_000001.bin", llmc_shard({1, 2}));
  put("web_val_000000.bin", llmc_shard({9}));
  put("tokenizer.model", "not a shard");
  const auto corpus = open_corpus(folder_.path());
  ASSERT_TRUE(corpus.ok()) << corpus.error().message;
  ASSERT_EQ(corpus->train.size(), 2u);
  EXPECT_EQ(corpus->train[0].path, folder_.file("web_train_000001.bin"));
  EXPECT_EQ(corpus->train[1].path, folder_.file("web_train_000002.bin"));
  EXPECT_EQ(corpus->train_tokens, 5);
  ASSERT_EQ(corpus->val.size(), 1u);
  EXPECT_EQ(corpus->val_tokens, 1);
}

TEST_F(ShardTest, TheNameTellsTheKind) {
  for (const char* name : {"corpus_train_000001.bin", "tiny_shakespeare_train.bin", "TinyStories_train.bin",
                           "train.bin", "edu_fineweb_train_000001.bin", "fineweb-train-1.bin", "retrain_train_2.bin",
                           "x.train.bin", "train7.bin", "a_train_train_000001.bin", "my_valley_train_1.bin"})
    EXPECT_EQ(shard_kind(folder_.file(name)).value(), ShardKind::train) << name;
  for (const char* name : {"corpus_val_000000.bin", "tiny_shakespeare_val.bin", "TinyStories_val.bin", "val.bin",
                           "fineweb_val_000000.bin", "training_val_1.bin"})
    EXPECT_EQ(shard_kind(folder_.file(name)).value(), ShardKind::val) << name;
  for (const char* name : {"my_val_train_000001.bin", "x_train_val_000000.bin", "train_val.bin"}) {
    const auto kind = shard_kind(folder_.file(name));
    ASSERT_FALSE(kind.ok()) << name;
    EXPECT_EQ(kind.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(kind.error().message, HasSubstr(folder_.file(name) + " has both \"train\" and \"val\" in its name"));
  }
  for (const char* name : {"fineweb_000000.bin", "trainval.bin", "validation_1.bin", "Xval_1.bin", "test.bin"}) {
    const auto kind = shard_kind(folder_.file(name));
    ASSERT_FALSE(kind.ok()) << name;
    EXPECT_THAT(kind.error().message, HasSubstr("has neither \"train\" nor \"val\" in its name"));
  }
  EXPECT_EQ(shard_kind("/data/train/fineweb_val_1.bin").value(), ShardKind::val);  // the folder does not count
}

TEST_F(ShardTest, NamesAreMadeAsTheyAreRead) {
  EXPECT_EQ(shard_name("corpus", ShardKind::train, 1), "corpus_train_000001.bin");
  EXPECT_EQ(shard_name("corpus", ShardKind::val, 0), "corpus_val_000000.bin");
  for (const ShardKind kind : {ShardKind::train, ShardKind::val})
    EXPECT_EQ(shard_kind(shard_name("a.b-c", kind, 1'234'567)).value(), kind);
}

TEST_F(ShardTest, AShardOfNoKindOrOfBothIsRefusedNotIgnored) {
  put("web_train_000001.bin", llmc_shard({1, 2}));
  put("my_val_train_000001.bin", llmc_shard({3, 4}));
  EXPECT_THAT(open_corpus(folder_.path()).error().message,
              HasSubstr(folder_.file("my_val_train_000001.bin") + " has both"));
  std::filesystem::remove(folder_.file("my_val_train_000001.bin"));
  put("web_000002.bin", llmc_shard({3, 4}));
  EXPECT_THAT(open_corpus(folder_.path()).error().message, HasSubstr(folder_.file("web_000002.bin") + " has neither"));
}

TEST_F(ShardTest, FoldersAsTheScriptsOfLlmcWriteThemAreRead) {
  put("tiny_shakespeare_train.bin", llmc_shard({1, 2, 3}));
  put("tiny_shakespeare_val.bin", llmc_shard({4}));
  const auto corpus = open_corpus(folder_.path());
  ASSERT_TRUE(corpus.ok()) << corpus.error().message;
  EXPECT_EQ(corpus->train_tokens, 3);
  EXPECT_EQ(corpus->val_tokens, 1);
}

TEST_F(ShardTest, SaysWhatIsWrongWithACorpusFolder) {
  const auto missing = open_corpus(folder_.file("nowhere"));
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_THAT(missing.error().message, HasSubstr("cannot read the corpus folder " + folder_.file("nowhere") +
                                                 ": No such file or directory; make one with `assay data prepare`"));
  EXPECT_THAT(open_corpus(put("file", "x")).error().message, HasSubstr("Not a directory"));
  EXPECT_THAT(open_corpus(folder_.path()).error().message, HasSubstr("holds no *.bin shards"));
  put("web_val_000000.bin", llmc_shard({9}));
  EXPECT_THAT(open_corpus(folder_.path()).error().message,
              HasSubstr("holds 1 *.bin files, but none with \"train\" in its name"));
  put("web_train_000001.bin", llmc_shard({1, 2}));
  put("web_train_000002.bin", llmc_shard({1, 2}).substr(0, 1026));
  EXPECT_THAT(
      open_corpus(folder_.path()).error().message,
      HasSubstr("web_train_000002.bin is not a usable token shard: its header says 2 tokens, but the file holds 1"));
}

TEST_F(ShardTest, AFailedWriteLeavesNothing) {
  const std::string path = folder_.file("missing/corpus_train_000001.bin");
  const Status written = write_shard(path, {1});
  ASSERT_FALSE(written.ok());
  EXPECT_THAT(written.error().message, HasSubstr(path));
  EXPECT_FALSE(std::filesystem::exists(folder_.file("missing")));
}

}  // namespace
}  // namespace assay
