// Deterministic, resumable, rank-sharded batches of tokens and next-token targets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/data/shard.h"

namespace assay {

// Where the loader stands: everything a checkpoint needs. Positions count tokens over the concatenated shards.
struct LoaderCursor {
  int64_t position = 0;  // of rank 0's next window in the current epoch
  int64_t epoch = 0;
  bool operator==(const LoaderCursor&) const = default;
};

// What a run reads: for each shard's name its number of tokens and a CRC-32 of limits::fingerprint_blocks blocks of it,
// spread evenly. Equal text gives equal identities wherever the folder is; text that was prepared anew gives another.
using CorpusIdentity = std::map<std::string, std::string>;

// Tokens that one micro-batch of all ranks takes, its last target included: of less text nothing can be trained.
constexpr int64_t micro_batch_tokens(int64_t ranks, int64_t device_batch, int64_t sequence_len) {
  return ranks * device_batch * sequence_len + 1;
}
// "one micro-batch needs 129 (devices * train.device_batch * model.sequence_len = 1 * 2 * 64, and the last target)"
std::string micro_batch_need(int64_t ranks, int64_t device_batch, int64_t sequence_len);

// Windows of T+1 tokens in corpus order: micro-batch m of rank r takes the next device_batch windows after those of
// rank r-1; shards are memory-mapped; the corpus starts again when fewer tokens remain than one global micro-batch
// needs.
class Loader {
 public:
  // Errors: a shard that changed since it was checked; fewer tokens than one global micro-batch needs (both are named).
  static Result<std::unique_ptr<Loader>> open(const std::vector<ShardInfo>& shards, int64_t sequence_len,
                                              int64_t device_batch, int rank, int world_size);
  virtual ~Loader() = default;
  // Fills tokens and targets, both int32 [device_batch * sequence_len]; advances the cursor.
  virtual void next(int32_t* tokens, int32_t* targets) = 0;
  virtual LoaderCursor cursor() const = 0;
  // A position with less than a global micro-batch after it means the start of the next epoch.
  virtual void seek(const LoaderCursor&) = 0;
  // Of the shards as they were opened. Reads up to 256 KiB of each.
  virtual CorpusIdentity identity() const = 0;
  // The largest token in everything next() has handed out so far. A token beyond the vocabulary is a data_error: ask
  // after next(), before the tokens are used as an index. (What can be known ahead is corpus_check.h's.)
  virtual int32_t largest_token_seen() const = 0;
};

}  // namespace assay
