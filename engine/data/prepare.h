// Text files -> SentencePiece BPE tokenizer -> token shards (`assay data prepare`).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/data/round_trip.h"
#include "engine/data/survey.h"

namespace assay {

struct PrepareOptions {
  std::vector<std::string> inputs;  // files, or folders searched for *.txt, *.rst and *.md; .gz is read too
  std::string output_folder;  // gets tokenizer.model, <name>_train_000001.bin ..., <name>_val_000000.bin, corpus.json
  std::string name = "corpus";
  int vocab_size = 32768;
  int64_t max_bytes = 0;  // stop reading text after this many bytes, 0 = all
  int64_t tokens_per_shard = 100'000'000;
  // Every n-th document goes to the validation shards, n = round(1 / val_fraction), or the last one if there are fewer
  // than n; so validation text is spread over the corpus. 0 = no validation shards; a single document is all for
  // training.
  double val_fraction = 0.01;
  std::string tokenizer;  // use this SentencePiece model instead of training one; vocab_size is then the model's
};
struct PrepareResult {
  int64_t documents = 0;
  int64_t text_bytes = 0;
  std::vector<SkippedFile> skipped;  // not UTF-8 text
  int64_t unread_files = 0;          // behind max_bytes
  int64_t passed_over = 0;           // in folders: files of other names, symbolic links
  RoundTrip round_trip;              // of all documents
  int64_t train_tokens = 0;
  int64_t val_tokens = 0;
  int vocab_size = 0;
  int separator_id = 0;  // the token in front of every document: the tokenizer's BOS, or its EOS if it has no BOS
  std::vector<std::string> files;  // absolute
  std::string corpus_json;         // what corpus.json holds
};
// A document is a file or, of a file larger than limits::document_bytes, each part of at most that size cut at a line's
// end. Deterministic: the same inputs and options give the same bytes.
//
// `progress` gets short lines for a person. Everything is written to <output_folder>.preparing and then takes the place
// of the output folder in one rename, so an interrupted call leaves the old corpus as it was. An existing folder is
// replaced only if it holds nothing but a corpus that this function wrote.
Result<PrepareResult> prepare_data(const PrepareOptions&, const std::function<void(const std::string&)>& progress);

}  // namespace assay
