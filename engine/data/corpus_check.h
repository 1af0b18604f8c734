// What a run needs of its corpus, looked at before anything is trained: the daemon asks before it queues a run, the
// trainer before it starts one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/data/shard.h"
#include "spec/run_config.h"

namespace assay {

// The largest token among those that were looked at.
struct TokenScan {
  int32_t largest = -1;  // -1: there are none
  std::string shard;     // that holds it
  int64_t looked_at = 0;
};

struct CorpusFacts {
  std::string path;
  Corpus corpus;
  TokenScan train, val;
  int64_t vocab_size = 0;  // of the tokenizer it was prepared with (corpus.json), 0 = made elsewhere
};

// Opens the corpus, reads what `assay data prepare` says of it, and looks at the tokens: all of them up to
// limits::scanned_corpus_bytes, else the first of every shard. Errors are open_corpus's.
Result<CorpusFacts> look_at_corpus(const std::string& path);

// Why this run cannot be trained on it, beginning with the key to change: too little training or validation text for
// one micro-batch, or tokens beyond the vocabulary. Nothing: it can, as far as was looked.
std::optional<std::string> corpus_problem(const RunConfig&, const CorpusFacts&);

// A token that the run's vocabulary does not have.
std::string vocabulary_problem(const std::string& where, int64_t token, int64_t vocab_size);

// "corpus: 123456 training tokens, 789 of validation, largest token 2047 (all looked at)"
std::string describe(const CorpusFacts&);

}  // namespace assay
