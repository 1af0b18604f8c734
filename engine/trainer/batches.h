// Micro-batches of a run: corpus, loaders for training and validation, and the check that every token is in the
// vocabulary.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/data/loader.h"
#include "engine/plan/shape.h"

namespace assay {

class Batches {
 public:
  // Throws EngineError(data_error): folder missing or empty, damaged shard, too few tokens, vocabulary too small.
  Batches(const RunConfig&, const ModelShape&, int rank, int world_size);

  // The next micro-batch of training; valid until the next call of any function.
  void next_train();
  // Micro-batch 0 .. validation_batches() - 1 of a validation pass, always the same ones.
  void start_validation() { validation_->seek({}); }
  void next_validation() { fill(*validation_); }
  int64_t validation_batches() const { return validation_batches_; }

  const int32_t* tokens() const { return tokens_.data(); }
  const int32_t* targets() const { return targets_.data(); }
  LoaderCursor cursor() const { return train_->cursor(); }
  void seek(const LoaderCursor& cursor) { train_->seek(cursor); }
  // Of all that the run reads: the training shards, and those for validation if it validates.
  CorpusIdentity corpus_identity() const;
  int64_t train_tokens() const { return train_tokens_; }

 private:
  void fill(Loader&);
  void open_validation(const RunConfig&, const ModelShape&, const Corpus&, int rank, int world_size);
  void check_vocabulary(const Loader&) const;

  std::string path_;
  int64_t vocab_ = 0;
  int64_t train_tokens_ = 0;
  int64_t validation_batches_ = 0;
  std::unique_ptr<Loader> train_, validation_;
  std::vector<int32_t> tokens_, targets_;
};

}  // namespace assay
