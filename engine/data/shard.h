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

struct ShardInfo {
  std::string path;
  int64_t tokens = 0;
};

// Checks magic, version, and that the file holds exactly the tokens its header names; the error says which is wrong.
Result<ShardInfo> open_shard(const std::string& path);

struct Corpus {
  std::vector<ShardInfo> train;  // files with "_train_" in the name, sorted by name
  std::vector<ShardInfo> val;    // "_val_"
  int64_t train_tokens = 0;
  int64_t val_tokens = 0;
};
// `path` is a folder of *.bin shards. An empty or missing folder, or one damaged shard, is an error that names it.
Result<Corpus> open_corpus(const std::string& path);

// Written whole or not at all.
Status write_shard(const std::string& path, const std::vector<uint16_t>& tokens);

}  // namespace assay
