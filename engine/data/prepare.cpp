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
  if (o.name.empty() || o.name.size() > limits::name_chars || !plain)
    return wrong(
        fmt::format("corpus name \"{}\" must be 1 to {} letters, digits, '.', '_' or '-'", o.name, limits::name_chars));
  for (const ShardKind kind : {ShardKind::train, ShardKind::val})
    if (const auto found = shard_kind(shard_name(o.name, kind, 0)); !found.ok())
      return wrong(
          fmt::format("corpus name \"{}\" must not have the word \"train\" or \"val\" in it: these tell "
                      "training from validation shards",
                      o.name));
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

Result<Tokenizer> make_tokenizer(const PrepareOptions& options, const Survey& survey, const Say& say) {
  if (!options.tokenizer.empty()) {
    ASSAY_ASSIGN(std::string model, read_file(options.tokenizer));
    return Tokenizer::load(std::move(model), options.tokenizer);
  }
  ASSAY_ASSIGN(const std::string sample, sample_text(survey, options.max_bytes));
  say(fmt::format("training a BPE tokenizer of {} tokens on {} of text", options.vocab_size,
                  megabytes(static_cast<int64_t>(sample.size()))));
  const Stopwatch watch;
  auto tokenizer = Tokenizer::train(sample, options.vocab_size);
  if (tokenizer.ok()) say(fmt::format("tokenizer ready in {:.1f} s", watch.seconds()));
  return tokenizer;
}

// Tokens of one kind on their way into numbered shards.
class ShardSeries {
 public:
  // llm.c numbers training shards from 1 and validation shards from 0.
  ShardSeries(std::string folder, const PrepareOptions& options, ShardKind kind)
      : folder_(std::move(folder)),
        corpus_(options.name),
        kind_(kind),
        number_(kind == ShardKind::train ? 1 : 0),
        limit_(static_cast<size_t>(options.tokens_per_shard)) {}

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
    names_.push_back(shard_name(corpus_, kind_, number_++));
    ASSAY_TRY(write_shard(folder_ + "/" + names_.back(), pending_));
    pending_.clear();
    return {};
  }
  int64_t total() const { return total_; }
  const Files& names() const { return names_; }

 private:
  std::string folder_, corpus_;
  ShardKind kind_;
  int number_;
  size_t limit_;
  std::vector<uint16_t> pending_;
  int64_t total_ = 0;
  Files names_;
};

struct Encoded {
  std::vector<uint16_t> tokens;  // the separator in front
  RoundTrip round_trip;
};

Result<Encoded> encode_document(const Document& document, const Tokenizer& tokenizer) {
  std::vector<uint16_t> tokens;
  ASSAY_TRY(tokenizer.encode(document.text, tokens));
  ASSAY_ASSIGN(const std::string decoded, tokenizer.decode(tokens));
  Encoded encoded{.round_trip = compare_decoded(document, decoded)};
  encoded.round_trip.unknown_tokens = std::count(tokens.begin(), tokens.end(), tokenizer.unknown_id());
  encoded.tokens.reserve(tokens.size() + 1);
  encoded.tokens.push_back(static_cast<uint16_t>(tokenizer.separator_id()));
  encoded.tokens.insert(encoded.tokens.end(), tokens.begin(), tokens.end());
  return encoded;
}

// Documents that all cores encode together; results keep the documents' order.
class Batch {
 public:
  static constexpr size_t batch_bytes = 8 * limits::document_bytes;

  Status read(TextReader& reader) {
    documents_.clear();
    for (size_t bytes = 0; bytes < batch_bytes; bytes += documents_.back().text.size()) {
      ASSAY_ASSIGN(std::optional<Document> document, reader.next());
      if (!document) break;
      documents_.push_back(std::move(*document));
    }
    return {};
  }
  bool empty() const { return documents_.empty(); }

  std::vector<Result<Encoded>> encode(const Tokenizer& tokenizer) const {
    std::vector<Result<Encoded>> encoded(documents_.size(), Encoded{});
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i = next++; i < documents_.size(); i = next++) encoded[i] = encode_document(documents_[i], tokenizer);
    };
    {
      std::vector<std::jthread> helpers;
      for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) helpers.emplace_back(work);
      work();
    }
    return encoded;
  }

 private:
  std::vector<Document> documents_;
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

Result<RoundTrip> encode_text(const PrepareOptions& options, const Survey& survey, const Tokenizer& tokenizer,
                              ShardSeries& train, ShardSeries& val, const Say& say) {
  const Split split(options.val_fraction, survey.documents);
  const Stopwatch watch;
  TextReader reader(survey.files, options.max_bytes);
  Batch batch;
  RoundTrip round_trip;
  int64_t number = 0, said_percent = 0;
  while (true) {
    ASSAY_TRY(batch.read(reader));
    if (batch.empty()) break;
    for (const Result<Encoded>& document : batch.encode(tokenizer)) {
      if (!document.ok()) return document.error();
      round_trip.add(document->round_trip);
      ASSAY_TRY((split.is_val(number++) ? val : train).add(document->tokens));
    }
    const int64_t percent = 100 * reader.bytes() / survey.bytes;
    if (percent < said_percent + 10 && percent < 100) continue;
    said_percent = percent;
    say(fmt::format("encoded {} % ({}) in {:.1f} s", percent, megabytes(reader.bytes()), watch.seconds()));
  }
  if (number != survey.documents || reader.bytes() != survey.bytes)
    return Error{ErrorCode::aborted,
                 fmt::format("the text changed while it was read: {} bytes in {} documents, then {} in {}; try again",
                             survey.bytes, survey.documents, reader.bytes(), number)};
  ASSAY_TRY(train.flush());
  ASSAY_TRY(val.flush());
  return round_trip;
}

std::string describe(const PrepareOptions& options, const PrepareResult& result, const Tokenizer& tokenizer,
                     const Files& names) {
  using Json = nlohmann::ordered_json;
  Json skipped = Json::array();
  for (const SkippedFile& file : result.skipped) skipped.push_back({{"file", file.path}, {"reason", file.reason}});
  const RoundTrip& r = result.round_trip;
  const Json first = {{"file", r.path}, {"line", r.line}, {"text", r.text}, {"decoded", r.decoded}};
  const Json corpus = {{"name", options.name},
                       {"vocab_size", result.vocab_size},
                       {"separator_id", result.separator_id},
                       {"train_tokens", result.train_tokens},
                       {"val_tokens", result.val_tokens},
                       {"documents", result.documents},
                       {"text_bytes", result.text_bytes},
                       {"skipped_files", result.skipped.size()},
                       {"skipped", skipped},
                       {"unread_files", result.unread_files},
                       {"passed_over_files", result.passed_over},
                       {"round_trip",
                        {{"documents_changed", r.documents_changed},
                         {"bytes_changed", r.bytes_changed},
                         {"line_ends_lost", r.line_ends_lost},
                         {"unknown_tokens", r.unknown_tokens},
                         {"first", r.path.empty() ? Json() : first}}},
                       {"inputs", options.inputs},
                       {"tokenizer_sha256", sha256_hex(tokenizer.model())},
                       {"files", names}};
  return corpus.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

Result<PrepareResult> prepare_data(const PrepareOptions& options, const Say& progress) {
  ASSAY_TRY(check_options(options));
  ASSAY_ASSIGN(const TextFiles found, find_text_files(options.inputs));
  ASSAY_ASSIGN(StagingFolder staging, StagingFolder::create(options.output_folder));
  ASSAY_ASSIGN(const Survey survey, survey_text(found.paths, options.max_bytes));
  progress(fmt::format("found {} of text in {} documents of {} files", megabytes(survey.bytes), survey.documents,
                       survey.files.size()));
  say_left_out(survey, found, progress);
  ASSAY_ASSIGN(const Tokenizer tokenizer, make_tokenizer(options, survey, progress));
  ASSAY_TRY(write_file_atomically(staging.path() + "/" + tokenizer_name, tokenizer.model()));

  ShardSeries train(staging.path(), options, ShardKind::train);
  ShardSeries val(staging.path(), options, ShardKind::val);
  ASSAY_ASSIGN(const RoundTrip round_trip, encode_text(options, survey, tokenizer, train, val, progress));
  if (round_trip.documents_changed > 0) progress(describe(round_trip, survey.documents));

  PrepareResult result{.documents = survey.documents,
                       .text_bytes = survey.bytes,
                       .skipped = survey.skipped,
                       .unread_files = survey.unread_files,
                       .passed_over = static_cast<int64_t>(found.passed_over.size()),
                       .round_trip = round_trip,
                       .train_tokens = train.total(),
                       .val_tokens = val.total(),
                       .vocab_size = tokenizer.vocab_size(),
                       .separator_id = tokenizer.separator_id()};
  Files names = train.names();
  names.insert(names.end(), val.names().begin(), val.names().end());
  names.push_back(tokenizer_name);
  result.corpus_json = describe(options, result, tokenizer, names);
  ASSAY_TRY(write_file_atomically(staging.path() + "/corpus.json", result.corpus_json));
  ASSAY_TRY(staging.publish());
  for (const std::string& name : names) result.files.push_back(staging.target() + "/" + name);
  progress(fmt::format("wrote {} training and {} validation tokens to {}", result.train_tokens, result.val_tokens,
                       staging.target()));
  return result;
}

}  // namespace assay
