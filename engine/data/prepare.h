// Text files -> SentencePiece BPE tokenizer -> token shards (`assay data prepare`).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace assay {

struct PrepareOptions {
  std::vector<std::string> inputs;   // files or folders (searched for *.txt, *.rst, *.md, also .gz is not read)
  std::string output_folder;         // gets tokenizer.model, <name>_train_000001.bin ..., <name>_val_000000.bin
  std::string name = "corpus";
  int vocab_size = 32768;
  int64_t max_bytes = 0;             // stop reading text after this many bytes, 0 = all
  int64_t tokens_per_shard = 100'000'000;
  double val_fraction = 0.01;        // the last part of every 100 documents, so that it is spread over the corpus
  std::string tokenizer;             // use this SentencePiece model instead of training one
};
struct PrepareResult {
  int64_t documents = 0;
  int64_t text_bytes = 0;
  int64_t train_tokens = 0;
  int64_t val_tokens = 0;
  int vocab_size = 0;
  std::vector<std::string> files;
};
// `progress` gets short lines for a person. Nothing is left half-written: shards appear by rename, the folder's old
// shards of the same name are replaced only after all new ones are written.
Result<PrepareResult> prepare_data(const PrepareOptions&, const std::function<void(const std::string&)>& progress);

}  // namespace assay
