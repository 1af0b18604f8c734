// Token shards in llm.c's layout: 256 int32 header (magic 20240520, version 1, number of tokens), then uint16 tokens,
// little endian. Shards made for llm.c or modded-nanogpt (FineWeb) are read unchanged.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace assay {

inline constexpr int32_t shard_magic = 20240520;
inline constexpr int32_t shard_version = 1;
inline constexpr size_t shard_header_bytes = 1024;

// What a shard is for. Its file name says so with one of the words "train" and "val", a word being letters between
// other characters: corpus_train_000001.bin, tiny_shakespeare_val.bin, train.bin. This is the one place that tells.
enum class ShardKind { train, val };
// Errors (invalid_argument, with the path): neither word, or both.
Result<ShardKind> shard_kind(const std::string& path);
// The name of a corpus's shard: "corpus", train, 1 -> "corpus_train_000001.bin".
std::string shard_name(std::string_view corpus, ShardKind kind, int number);

struct ShardInfo {
  std::string path;
  int64_t tokens = 0;
};

// Checks magic, version, and that the file holds exactly the tokens its header names; the error says which is wrong.
Result<ShardInfo> open_shard(const std::string& path);

struct Corpus {
  std::vector<ShardInfo> train, val;  // by shard_kind(), sorted by name
  int64_t train_tokens = 0;
  int64_t val_tokens = 0;
};
// `path` is a folder of *.bin shards. An empty or missing folder, no training shard, one damaged shard, or one whose
// name does not tell its kind, is an error that names it: nothing in the folder is left out without a word.
Result<Corpus> open_corpus(const std::string& path);

// Written whole or not at all.
Status write_shard(const std::string& path, const std::vector<uint16_t>& tokens);

}  // namespace assay
