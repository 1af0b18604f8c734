#include "engine/data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/limits.h"
#include "engine/data/shard.h"
#include "engine/data/staging.h"
#include "engine/data/text_source.h"
#include "engine/data/tokenizer.h"

namespace assay {
namespace {

using Say = std::function<void(const std::string&)>;
using Files = std::vector<std::string>;

constexpr const char* tokenizer_name = "tokenizer.model";

std::string megabytes(int64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Status check_options(const PrepareOptions& o) {
  const auto wrong = [](std::string message) { return Error{ErrorCode::invalid_argument, std::move(message)}; };
  if (o.inputs.empty()) return wrong("no text was named: give files or folders");
  if (o.output_folder.empty()) return wrong("no output folder was named");
  const bool plain = std::all_of(o.name.begin(), o.name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  });
  // open_corpus() tells shards apart by these marks.
  const bool marked = o.name.find("_train_") != std::string::npos || o.name.find("_val_") != std::string::npos;
  if (o.name.empty() || o.name.size() > limits::name_chars || !plain || marked)
    return wrong(
        fmt::format("corpus name \"{}\" must be 1 to {} letters, digits, '.', '_' or '-', without \"_train_\" and "
                    "\"_val_\"",
                    o.name, limits::name_chars));
  if (o.vocab_size < 1 || o.vocab_size > limits::vocab_size)
    return wrong(fmt::format("vocabulary size {} must be from 1 to {} (tokens are stored as uint16)", o.vocab_size,
                             limits::vocab_size));
  if (!(o.val_fraction >= 0 && o.val_fraction <= 0.5))
    return wrong(fmt::format("validation fraction {} must be from 0 to 0.5", o.val_fraction));
  if (o.max_bytes < 0) return wrong(fmt::format("the limit of {} bytes of text is negative", o.max_bytes));
  if (o.tokens_per_shard < 1 || o.tokens_per_shard > INT32_MAX)
    return wrong(fmt::format("{} tokens per shard must be from 1 to {}", o.tokens_per_shard, INT32_MAX));
  return {};
}

struct Survey {
  int64_t documents = 0;
  int64_t bytes = 0;
  int64_t skipped_files = 0;
};

// A first pass over the text: how much there is decides the tokenizer's sample and the validation documents.
Result<Survey> survey_text(const Files& files, int64_t max_bytes) {
  TextReader reader(files, max_bytes);
  Survey survey;
  while (true) {
    ASSAY_ASSIGN(const std::optional<std::string> document, reader.next());
    if (!document) break;
    ++survey.documents;
  }
  survey.bytes = reader.bytes();
  survey.skipped_files = reader.skipped_files();
  if (survey.documents == 0)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the {} files found hold no text ({} are not UTF-8)", files.size(), survey.skipped_files)};
  return survey;
}

// Every n-th document, so that the sample is spread over the corpus; at most limits::tokenizer_sample_bytes.
Result<std::string> sample_text(const Files& files, int64_t max_bytes, int64_t total_bytes) {
  const auto bound = static_cast<int64_t>(limits::tokenizer_sample_bytes);
  const int64_t every = (total_bytes + bound - 1) / bound;
  TextReader reader(files, max_bytes);
  std::string sample;
  for (int64_t i = 0; sample.size() < limits::tokenizer_sample_bytes; ++i) {
    ASSAY_ASSIGN(const std::optional<std::string> document, reader.next());
    if (!document) break;
    if (i % every == 0) sample += *document + "\n";
  }
  return sample;
}

Result<Tokenizer> make_tokenizer(const PrepareOptions& options, const Files& files, const Survey& survey,
                                 const Say& say) {
  if (!options.tokenizer.empty()) {
    ASSAY_ASSIGN(std::string model, read_file(options.tokenizer));
    return Tokenizer::load(std::move(model), options.tokenizer);
  }
  ASSAY_ASSIGN(const std::string sample, sample_text(files, options.max_bytes, survey.bytes));
  say(fmt::format("training a BPE tokenizer of {} tokens on {} of text", options.vocab_size,
                  megabytes(static_cast<int64_t>(sample.size()))));
  const Stopwatch watch;
  auto tokenizer = Tokenizer::train(sample, options.vocab_size);
  if (tokenizer.ok()) say(fmt::format("tokenizer ready in {:.1f} s", watch.seconds()));
  return tokenizer;
}

// Tokens of one kind ("train" or "val") on their way into numbered shards.
class ShardSeries {
 public:
  // llm.c numbers training shards from 1 and validation shards from 0.
  ShardSeries(std::string folder, std::string stem, int first, int64_t tokens_per_shard)
      : folder_(std::move(folder)),
        stem_(std::move(stem)),
        number_(first),
        limit_(static_cast<size_t>(tokens_per_shard)) {}

  Status add(const std::vector<uint16_t>& tokens) {
    total_ += static_cast<int64_t>(tokens.size());
    for (auto from = tokens.begin(); from != tokens.end();) {
      const auto count = std::min<ptrdiff_t>(tokens.end() - from, static_cast<ptrdiff_t>(limit_ - pending_.size()));
      pending_.insert(pending_.end(), from, from + count);
      from += count;
      if (pending_.size() == limit_) ASSAY_TRY(flush());
    }
    return {};
  }
  Status flush() {
    if (pending_.empty()) return {};
    names_.push_back(fmt::format("{}_{:06}.bin", stem_, number_++));
    ASSAY_TRY(write_shard(folder_ + "/" + names_.back(), pending_));
    pending_.clear();
    return {};
  }
  int64_t total() const { return total_; }
  const Files& names() const { return names_; }

 private:
  std::string folder_, stem_;
  int number_;
  size_t limit_;
  std::vector<uint16_t> pending_;
  int64_t total_ = 0;
  Files names_;
};

// Documents that all cores encode together; results keep the documents' order.
class Batch {
 public:
  static constexpr size_t batch_bytes = 8 * limits::document_bytes;

  Status read(TextReader& reader) {
    documents_.clear();
    for (size_t bytes = 0; bytes < batch_bytes; bytes += documents_.back().size()) {
      ASSAY_ASSIGN(std::optional<std::string> document, reader.next());
      if (!document) break;
      documents_.push_back(std::move(*document));
    }
    return {};
  }
  bool empty() const { return documents_.empty(); }

  // The tokens of each document, the separator in front.
  Result<std::vector<std::vector<uint16_t>>> encode(const Tokenizer& tokenizer) const {
    std::vector<std::vector<uint16_t>> tokens(documents_.size());
    std::vector<Status> outcomes(documents_.size());
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i = next++; i < documents_.size(); i = next++) {
        tokens[i].push_back(static_cast<uint16_t>(tokenizer.separator_id()));
        outcomes[i] = tokenizer.encode(documents_[i], tokens[i]);
      }
    };
    {
      std::vector<std::jthread> helpers;
      for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) helpers.emplace_back(work);
      work();
    }
    for (const Status& outcome : outcomes) ASSAY_TRY(outcome);
    return tokens;
  }

 private:
  std::vector<std::string> documents_;
};

// Which documents are for validation: PrepareOptions::val_fraction.
class Split {
 public:
  Split(double val_fraction, int64_t documents) {
    if (val_fraction > 0 && documents > 1)
      every_ = std::min(std::llround(1 / val_fraction), static_cast<long long>(documents));
  }
  bool is_val(int64_t document) const { return every_ > 0 && document % every_ == every_ - 1; }

 private:
  long long every_ = 0;
};

Status encode_text(const PrepareOptions& options, const Files& files, const Survey& survey, const Tokenizer& tokenizer,
                   ShardSeries& train, ShardSeries& val, const Say& say) {
  const Split split(options.val_fraction, survey.documents);
  const Stopwatch watch;
  TextReader reader(files, options.max_bytes);
  Batch batch;
  int64_t number = 0, said_percent = 0;
  while (true) {
    ASSAY_TRY(batch.read(reader));
    if (batch.empty()) break;
    ASSAY_ASSIGN(const auto documents, batch.encode(tokenizer));
    for (const auto& tokens : documents) ASSAY_TRY((split.is_val(number++) ? val : train).add(tokens));
    const int64_t percent = 100 * reader.bytes() / survey.bytes;
    if (percent < said_percent + 10 && percent < 100) continue;
    said_percent = percent;
    say(fmt::format("encoded {} % ({}) in {:.1f} s", percent, megabytes(reader.bytes()), watch.seconds()));
  }
  ASSAY_TRY(train.flush());
  return val.flush();
}

std::string describe(const PrepareOptions& options, const PrepareResult& result, const Tokenizer& tokenizer,
                     const Files& names) {
  const nlohmann::ordered_json corpus = {{"name", options.name},
                                         {"vocab_size", result.vocab_size},
                                         {"separator_id", result.separator_id},
                                         {"train_tokens", result.train_tokens},
                                         {"val_tokens", result.val_tokens},
                                         {"documents", result.documents},
                                         {"text_bytes", result.text_bytes},
                                         {"skipped_files", result.skipped_files},
                                         {"inputs", options.inputs},
                                         {"tokenizer_sha256", sha256_hex(tokenizer.model())},
                                         {"files", names}};
  return corpus.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

Result<PrepareResult> prepare_data(const PrepareOptions& options, const Say& progress) {
  ASSAY_TRY(check_options(options));
  ASSAY_ASSIGN(const Files files, find_text_files(options.inputs));
  ASSAY_ASSIGN(StagingFolder staging, StagingFolder::create(options.output_folder));
  ASSAY_ASSIGN(const Survey survey, survey_text(files, options.max_bytes));
  progress(fmt::format("found {} of text in {} documents of {} files", megabytes(survey.bytes), survey.documents,
                       files.size()));
  if (survey.skipped_files > 0) progress(fmt::format("skipped {} files that are not UTF-8 text", survey.skipped_files));
  ASSAY_ASSIGN(const Tokenizer tokenizer, make_tokenizer(options, files, survey, progress));
  ASSAY_TRY(write_file_atomically(staging.path() + "/" + tokenizer_name, tokenizer.model()));

  ShardSeries train(staging.path(), options.name + "_train", 1, options.tokens_per_shard);
  ShardSeries val(staging.path(), options.name + "_val", 0, options.tokens_per_shard);
  ASSAY_TRY(encode_text(options, files, survey, tokenizer, train, val, progress));

  PrepareResult result{survey.documents, survey.bytes,           survey.skipped_files,    train.total(),
                       val.total(),      tokenizer.vocab_size(), tokenizer.separator_id()};
  Files names = train.names();
  names.insert(names.end(), val.names().begin(), val.names().end());
  names.push_back(tokenizer_name);
  ASSAY_TRY(write_file_atomically(staging.path() + "/corpus.json", describe(options, result, tokenizer, names)));
  ASSAY_TRY(staging.publish());
  for (const std::string& name : names) result.files.push_back(staging.target() + "/" + name);
  progress(fmt::format("wrote {} training and {} validation tokens to {}", result.train_tokens, result.val_tokens,
                       staging.target()));
  return result;
}

}  // namespace assay
