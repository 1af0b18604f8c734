#include "engine/trainer/batches.h"

#include <algorithm>

#include "engine/data/corpus_check.h"
#include "engine/ops/error.h"

namespace assay {
namespace {

[[noreturn]] void data_error(const std::string& message) {
  throw EngineError(FailureReason::data_error, message, "load");
}

template <class T>
T take(Result<T> result) {
  if (!result.ok()) data_error(result.error().message);
  return std::move(result).value();
}

}  // namespace

Batches::Batches(const RunConfig& config, const ModelShape& shape, int rank, int world_size)
    : path_(config.data.path), vocab_(shape.vocab) {
  const Corpus corpus = take(open_corpus(config.data.path));
  train_ = take(Loader::open(corpus.train, shape.T, shape.batch, rank, world_size));
  train_tokens_ = corpus.train_tokens;
  if (config.train.val_every > 0) open_validation(config, shape, corpus, rank, world_size);
  tokens_.resize(static_cast<size_t>(shape.tokens));
  targets_.resize(static_cast<size_t>(shape.tokens));
}

void Batches::open_validation(const RunConfig& config, const ModelShape& shape, const Corpus& corpus, int rank,
                              int world_size) {
  validation_ = take(Loader::open(corpus.val, shape.T, shape.batch, rank, world_size));
  const int64_t global = shape.tokens * world_size;
  const int64_t available = std::max<int64_t>(1, (corpus.val_tokens - 1) / global);
  validation_batches_ = std::clamp<int64_t>(config.train.val_tokens / global, 1, available);
}

CorpusIdentity Batches::corpus_identity() const {
  CorpusIdentity identity = train_->identity();
  if (validation_) identity.merge(validation_->identity());
  return identity;
}

void Batches::next_train() {
  fill(*train_);
}

void Batches::fill(Loader& loader) {
  loader.next(tokens_.data(), targets_.data());
  check_vocabulary(loader);
}

void Batches::check_vocabulary(const Loader& loader) const {
  if (loader.largest_token_seen() < vocab_) return;
  data_error(vocabulary_problem(path_, loader.largest_token_seen(), vocab_));
}

}  // namespace assay
