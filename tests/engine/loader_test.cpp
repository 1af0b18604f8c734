#include "engine/data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/limits.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Batch {
  std::vector<int32_t> tokens, targets;
  bool operator==(const Batch&) const = default;
};

class LoaderTest : public testing::Test {
 protected:
  // Shards of these sizes; the token at position p of the stream is token_at(p).
  std::vector<ShardInfo> make_shards(const std::vector<int64_t>& sizes) {
    std::vector<ShardInfo> shards;
    int64_t position = 0;
    for (const int64_t size : sizes) {
      std::vector<uint16_t> tokens;
      for (int64_t i = 0; i < size; ++i) tokens.push_back(static_cast<uint16_t>(token_at(position++)));
      shards.push_back({folder_.file("c_train_" + std::to_string(shards.size()) + ".bin"), size});
      EXPECT_TRUE(write_shard(shards.back().path, tokens).ok());
    }
    return shards;
  }
  static int32_t token_at(int64_t position) { return static_cast<int32_t>((position * 7919 + 13) % 60'000); }

  static std::unique_ptr<Loader> open(const std::vector<ShardInfo>& shards, int64_t t, int64_t b, int rank = 0,
                                      int world = 1) {
    auto loader = Loader::open(shards, t, b, rank, world);
    EXPECT_TRUE(loader.ok()) << loader.error().message;
    return loader.ok() ? std::move(loader).value() : nullptr;
  }
  static Batch next(Loader& loader, int64_t size) {
    Batch batch{std::vector<int32_t>(static_cast<size_t>(size), -1),
                std::vector<int32_t>(static_cast<size_t>(size), -1)};
    loader.next(batch.tokens.data(), batch.targets.data());
    return batch;
  }
  static Batch expected(int64_t begin, int64_t size) {
    Batch batch;
    for (int64_t p = begin; p < begin + size; ++p) {
      batch.tokens.push_back(token_at(p));
      batch.targets.push_back(token_at(p + 1));
    }
    return batch;
  }
  TempFolder folder_;
};

TEST_F(LoaderTest, TargetsAreTheNextTokensAlsoOverShardBoundaries) {
  // Boundaries within windows, between them, a shard shorter than a window, and an empty one.
  const auto shards = make_shards({7, 1, 0, 8, 3, 21});
  auto loader = open(shards, 4, 2);
  for (int64_t begin = 0; begin + 8 + 1 <= 40; begin += 8) EXPECT_EQ(next(*loader, 8), expected(begin, 8)) << begin;
}

TEST_F(LoaderTest, RanksShareAGlobalMicroBatchInOrder) {
  const auto shards = make_shards({50, 50});
  auto rank0 = open(shards, 4, 2, 0, 3), rank1 = open(shards, 4, 2, 1, 3), rank2 = open(shards, 4, 2, 2, 3);
  for (int64_t begin = 0; begin + 25 <= 100; begin += 24) {
    EXPECT_EQ(next(*rank0, 8), expected(begin, 8));
    EXPECT_EQ(next(*rank1, 8), expected(begin + 8, 8));
    EXPECT_EQ(next(*rank2, 8), expected(begin + 16, 8));
    EXPECT_EQ(rank0->cursor().position, rank2->cursor().position);  // any rank's cursor describes them all
  }
}

TEST_F(LoaderTest, TheCorpusStartsAgainWhenAGlobalMicroBatchNoLongerFits) {
  const auto shards = make_shards({17});  // two micro-batches of 8 and the last target: fits exactly
  auto loader = open(shards, 8, 1);
  EXPECT_EQ(next(*loader, 8), expected(0, 8));
  EXPECT_EQ(next(*loader, 8), expected(8, 8));
  EXPECT_EQ(loader->cursor().epoch, 1);
  EXPECT_EQ(loader->cursor().position, 0);
  EXPECT_EQ(next(*loader, 8), expected(0, 8));

  auto shorter = open(make_shards({16}), 8, 1);  // the second micro-batch lacks its last target
  EXPECT_EQ(next(*shorter, 8), expected(0, 8));
  EXPECT_EQ(next(*shorter, 8), expected(0, 8));
  EXPECT_EQ(shorter->cursor().epoch, 2);
}

TEST_F(LoaderTest, SeekingToACursorContinuesFromThere) {
  const auto shards = make_shards({30, 31});
  auto loader = open(shards, 3, 2);
  for (int step = 0; step < 25; ++step) {
    auto resumed = open(shards, 3, 2);
    resumed->seek(loader->cursor());
    EXPECT_EQ(next(*resumed, 6), next(*loader, 6)) << step;
    EXPECT_EQ(resumed->cursor().position, loader->cursor().position);
    EXPECT_EQ(resumed->cursor().epoch, loader->cursor().epoch);
  }
  EXPECT_EQ(loader->cursor().epoch, 2);  // 10 micro-batches an epoch
}

TEST_F(LoaderTest, SeekingPastTheEndStartsTheNextEpoch) {
  auto loader = open(make_shards({20}), 8, 1);
  loader->seek({1'000'000, 4});
  EXPECT_EQ(loader->cursor().position, 0);
  EXPECT_EQ(loader->cursor().epoch, 5);
  loader->seek({-3, 4});
  EXPECT_EQ(loader->cursor().position, 0);
  EXPECT_EQ(next(*loader, 8), expected(0, 8));
}

TEST_F(LoaderTest, ACorpusTooSmallForOneMicroBatchNamesBothNumbers) {
  const auto shards = make_shards({100, 28});
  const auto loader = Loader::open(shards, 16, 4, 0, 2);
  ASSERT_FALSE(loader.ok());
  EXPECT_THAT(loader.error().message, HasSubstr("the corpus has 128 tokens, but one micro-batch needs 129 (devices * "
                                                "train.device_batch * model.sequence_len = 2 * 4 * 16"));
  EXPECT_TRUE(Loader::open(make_shards({100, 29}), 16, 4, 0, 2).ok());
  EXPECT_FALSE(Loader::open({}, 16, 4, 0, 2).ok());
}

TEST_F(LoaderTest, ImpossibleSizesAreRefused) {
  const auto shards = make_shards({100});
  EXPECT_THAT(Loader::open(shards, 0, 1, 0, 1).error().message, HasSubstr("1 sequences of 0 tokens for rank 0 of 1"));
  EXPECT_FALSE(Loader::open(shards, 4, 1, 2, 2).ok());
  EXPECT_FALSE(Loader::open(shards, 4, 1, -1, 2).ok());
}

TEST_F(LoaderTest, AShardThatChangedSinceItWasCheckedIsRefused) {
  const auto shards = make_shards({100});
  std::filesystem::resize_file(shards[0].path, shard_header_bytes + 50);
  EXPECT_THAT(Loader::open(shards, 4, 1, 0, 1).error().message,
              HasSubstr("has 1074 bytes instead of 1224: it changed"));
  std::filesystem::remove(shards[0].path);
  EXPECT_THAT(Loader::open(shards, 4, 1, 0, 1).error().message, HasSubstr("cannot open token shard " + shards[0].path));
}

TEST_F(LoaderTest, TheLargestTokenIsKnownAsItComes) {
  std::vector<uint16_t> tokens(200, 5);
  tokens[10] = 300;
  tokens[150] = 40'000;
  const std::string path = folder_.file("c_train_0.bin");
  ASSERT_TRUE(write_shard(path, tokens).ok());
  auto loader = open({{path, static_cast<int64_t>(tokens.size())}}, 50, 1);
  next(*loader, 50);
  EXPECT_EQ(loader->largest_token_seen(), 300);
  loader->seek({100, 0});
  next(*loader, 50);  // the large token is its last target
  EXPECT_EQ(loader->largest_token_seen(), 40'000);
}

TEST_F(LoaderTest, TheIdentityIsOfTheTextNotOfThePlace) {
  const auto here = open(make_shards({100, 50}), 4, 1)->identity();
  ASSERT_EQ(here.size(), 2u);
  EXPECT_THAT(here.at("c_train_0.bin"), testing::StartsWith("100 tokens, CRC-32 "));
  EXPECT_NE(here.at("c_train_0.bin"), here.at("c_train_1.bin"));
  const std::string elsewhere = folder_.file("elsewhere");
  std::filesystem::create_directory(elsewhere);
  std::vector<ShardInfo> moved;
  for (const int64_t size : {100, 50}) {
    const std::string name = "/c_train_" + std::to_string(moved.size()) + ".bin";
    std::filesystem::copy_file(folder_.path() + name, elsewhere + name);
    moved.push_back({elsewhere + name, size});
  }
  EXPECT_EQ(open(moved, 4, 1)->identity(), here);
}

TEST_F(LoaderTest, TheIdentityOfAShortShardSeesEveryTokenOfALongOneItsBlocks) {
  const auto identity_of = [&](const std::vector<uint16_t>& tokens) {
    const std::string path = folder_.file("c_train_0.bin");
    EXPECT_TRUE(write_shard(path, tokens).ok());
    return open({{path, static_cast<int64_t>(tokens.size())}}, 4, 1)->identity().at("c_train_0.bin");
  };
  constexpr size_t whole = limits::fingerprint_blocks * limits::fingerprint_block_bytes / sizeof(uint16_t);
  std::vector<uint16_t> tokens(whole, 5);
  const std::string before = identity_of(tokens);
  for (const size_t at : {size_t{0}, whole / 2 + 1, whole - 1}) {
    tokens[at] = 6;
    EXPECT_NE(identity_of(tokens), before) << at;
    tokens[at] = 5;
  }
  std::vector<uint16_t> large(10 * whole);
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<uint16_t>(i * i % 50'000);
  const std::string large_before = identity_of(large);
  for (const size_t at : {size_t{0}, large.size() - 1}) {
    ++large[at];
    EXPECT_NE(identity_of(large), large_before) << at;
    --large[at];
  }
  std::rotate(large.begin() + 1000, large.begin() + 1001, large.end());  // a token fewer here, one more at the end
  EXPECT_NE(identity_of(large), large_before);
}

TEST_F(LoaderTest, AnyFileNameMakesAPrintableIdentity) {
  const std::string path = folder_.file("b\xFF\n_train.bin");
  ASSERT_TRUE(write_shard(path, std::vector<uint16_t>(50, 1)).ok());
  EXPECT_EQ(open({{path, 50}}, 4, 1)->identity().begin()->first, "b\\xff\\n_train.bin");
}

}  // namespace
}  // namespace assay
