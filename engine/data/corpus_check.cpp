#include "engine/data/corpus_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/limits.h"
#include "base/unique_handle.h"
#include "engine/data/loader.h"

namespace assay {
namespace {

constexpr size_t read_tokens = 1 << 16;  // at a time

// Up to `most` tokens from the start of a shard. What cannot be read is not looked at: the loader will say so.
void scan_shard(const ShardInfo& shard, int64_t most, std::vector<uint16_t>& buffer, TokenScan& scan) {
  const UniqueFd fd(::open(shard.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return;
  off_t at = shard_header_bytes;
  for (int64_t left = std::min(most, shard.tokens); left > 0;) {
    const size_t wanted = std::min(static_cast<size_t>(left), read_tokens) * sizeof(uint16_t);
    const ssize_t bytes = ::pread(fd.get(), buffer.data(), wanted, at);
    const int64_t tokens = bytes / static_cast<ssize_t>(sizeof(uint16_t));
    if (tokens <= 0) return;
    const int32_t largest = *std::max_element(buffer.begin(), buffer.begin() + tokens);
    if (largest > scan.largest) scan.largest = largest, scan.shard = shard.path;
    scan.looked_at += tokens;
    left -= tokens;
    at += bytes;
  }
}

TokenScan scan_tokens(const std::vector<ShardInfo>& shards, int64_t tokens) {
  constexpr auto most = static_cast<int64_t>(limits::scanned_corpus_bytes / sizeof(uint16_t));
  const auto count = static_cast<int64_t>(std::max<size_t>(1, shards.size()));
  const int64_t share = tokens <= most ? tokens : std::max<int64_t>(most / count, 1);
  TokenScan scan;
  std::vector<uint16_t> buffer(read_tokens);
  for (const ShardInfo& shard : shards) scan_shard(shard, share, buffer, scan);
  return scan;
}

int64_t prepared_vocab_size(const std::string& path) {
  const auto text = read_file(path + "/corpus.json", limits::corpus_manifest_bytes);
  if (!text.ok()) return 0;
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object() || !json.contains("vocab_size") || !json["vocab_size"].is_number_integer()) return 0;
  return json["vocab_size"].get<int64_t>();
}

std::optional<std::string> size_problem(const RunConfig& c, const CorpusFacts& facts) {
  const Corpus& corpus = facts.corpus;
  const int64_t needed = micro_batch_tokens(c.devices, c.train.device_batch, c.model.sequence_len);
  const std::string need = micro_batch_need(c.devices, c.train.device_batch, c.model.sequence_len);
  if (corpus.train_tokens < needed)
    return fmt::format(
        "data.path: {} holds {} training tokens, but {}; use more text, or lower train.device_batch or "
        "model.sequence_len",
        facts.path, corpus.train_tokens, need);
  if (c.train.val_every == 0) return std::nullopt;
  if (corpus.val.empty())
    return fmt::format(
        "train.val_every = {} needs validation shards (files with \"val\" in the name), and {} has none; set "
        "train.val_every "
        "= 0 or add them",
        c.train.val_every, facts.path);
  if (corpus.val_tokens < needed)
    return fmt::format(
        "train.val_every = {}: the validation text of {} has {} tokens, but {}; prepare the text with a "
        "larger --val-fraction, lower train.device_batch or model.sequence_len, or set train.val_every = 0",
        c.train.val_every, facts.path, corpus.val_tokens, need);
  return std::nullopt;
}

}  // namespace

Result<CorpusFacts> look_at_corpus(const std::string& path) {
  CorpusFacts facts{.path = path};
  ASSAY_ASSIGN(facts.corpus, open_corpus(path));
  facts.train = scan_tokens(facts.corpus.train, facts.corpus.train_tokens);
  facts.val = scan_tokens(facts.corpus.val, facts.corpus.val_tokens);
  facts.vocab_size = prepared_vocab_size(path);
  return facts;
}

std::optional<std::string> corpus_problem(const RunConfig& c, const CorpusFacts& facts) {
  if (auto problem = size_problem(c, facts)) return problem;
  std::vector<std::pair<const TokenScan*, int64_t>> read = {{&facts.train, facts.corpus.train_tokens}};
  if (c.train.val_every > 0) read.push_back({&facts.val, facts.corpus.val_tokens});
  for (const auto& [scan, tokens] : read) {
    if (scan->largest >= c.model.vocab_size) return vocabulary_problem(scan->shard, scan->largest, c.model.vocab_size);
    // What was not looked at may hold any token of the tokenizer.
    if (scan->looked_at < tokens && facts.vocab_size > c.model.vocab_size)
      return fmt::format(
          "model.vocab_size = {}, but {} was prepared with a vocabulary of {}; set model.vocab_size to at "
          "least that",
          c.model.vocab_size, facts.path, facts.vocab_size);
  }
  return std::nullopt;
}

std::string vocabulary_problem(const std::string& where, int64_t token, int64_t vocab_size) {
  return fmt::format(
      "model.vocab_size = {}, but {} holds token {}; set model.vocab_size to at least {} or prepare the text "
      "with a smaller tokenizer",
      vocab_size, where, token, token + 1);
}

std::string describe(const CorpusFacts& facts) {
  const int64_t tokens = facts.corpus.train_tokens + facts.corpus.val_tokens;
  const int64_t looked_at = facts.train.looked_at + facts.val.looked_at;
  return fmt::format("{}: {} training tokens, {} of validation, largest token {} ({})", facts.path,
                     facts.corpus.train_tokens, facts.corpus.val_tokens,
                     std::max(facts.train.largest, facts.val.largest),
                     looked_at == tokens ? "all looked at" : fmt::format("of the {} looked at", looked_at));
}

}  // namespace assay
