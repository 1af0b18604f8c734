#include "engine/data/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <charconv>
#include <optional>
#include <unordered_map>

#include "base/limits.h"

namespace assay {
namespace {

// The lines of a text, one after another.
class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::string& text) : text_(text) { Next(); }
  bool done() const override { return done_; }
  void Next() override {
    done_ = position_ >= text_.size();
    if (done_) return;
    const size_t end = std::min(text_.find('\n', position_), text_.size());
    line_.assign(text_, position_, end - position_);
    position_ = end + 1;
  }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::string& text_;
  size_t position_ = 0;
  std::string line_;
  bool done_ = false;
};

// The number that follows `words` in a message of SentencePiece.
std::optional<int> number_after(std::string_view message, std::string_view words) {
  const size_t at = message.find(words);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = message.substr(at + words.size());
  int number = 0;
  if (std::from_chars(rest.data(), rest.data() + rest.size(), number).ec != std::errc{}) return std::nullopt;
  return number;
}

Error training_failed(const std::string& message, size_t text_bytes, int vocab_size) {
  const auto too_much = [&](const std::string& advice) {
    return Error{ErrorCode::invalid_argument, fmt::format("{} bytes of text do not give a vocabulary of {} tokens: {}",
                                                          text_bytes, vocab_size, advice)};
  };
  if (const auto most = number_after(message, "set it to a value <= "))
    return too_much(fmt::format("it supports at most {}; use --vocab-size {} or more text", *most, *most));
  if (const auto least = number_after(message, fmt::format("required_chars. {} vs ", vocab_size)))
    return too_much(fmt::format("its characters alone need {}; use a larger --vocab-size", *least));
  if (message.find("sentences_.empty()") != std::string::npos)
    return too_much("it has nothing but empty lines; name other files");
  return Error{ErrorCode::internal,
               fmt::format("SentencePiece could not train a vocabulary of {} tokens on {} bytes of "
                           "text; another --vocab-size may do: {}",
                           vocab_size, text_bytes, message)};
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor, std::string model)
    : processor_(std::move(processor)), model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::train(const std::string& text, int vocab_size) {
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab_size)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},  // indentation is one token
      {"split_digits", "true"},
      {"max_sentence_length", std::to_string(limits::document_bytes + 1)},  // longer lines would be left out
      {"minloglevel", "2"},                                                 // only errors on stderr
  };
  LineIterator lines(text);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, &model);
  if (!status.ok()) return training_failed(status.ToString(), text.size(), vocab_size);
  return load(std::move(model), "the new tokenizer");
}

Result<Tokenizer> Tokenizer::load(std::string model, const std::string& path) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  if (model.empty() || !processor->LoadFromSerializedProto(model).ok())
    return Error{ErrorCode::invalid_argument, fmt::format("{} is not a SentencePiece model", path)};
  if (processor->GetPieceSize() > limits::vocab_size)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the tokenizer {} has {} pieces, but token shards hold at most {} (uint16)", path,
                             processor->GetPieceSize(), limits::vocab_size)};
  Tokenizer tokenizer(std::move(processor), std::move(model));
  if (tokenizer.separator_id() < 0)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the tokenizer {} has neither a BOS nor an EOS piece to put between documents", path)};
  std::vector<int> newline;
  if (const auto status = tokenizer.processor_->Encode("\n", &newline); !status.ok())
    return Error{ErrorCode::internal, fmt::format("the tokenizer {} cannot encode: {}", path, status.ToString())};
  tokenizer.newline_.assign(newline.begin(), newline.end());
  return tokenizer;
}

int Tokenizer::vocab_size() const {
  return processor_->GetPieceSize();
}

int Tokenizer::separator_id() const {
  return processor_->bos_id() >= 0 ? processor_->bos_id() : processor_->eos_id();
}

Status Tokenizer::encode(std::string_view text, std::vector<uint16_t>& out) const {
  std::vector<int> ids;
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    if (const auto status = processor_->Encode({line.data(), line.size()}, &ids); !status.ok())
      return Error{ErrorCode::internal, fmt::format("SentencePiece could not encode: {}", status.ToString())};
    out.insert(out.end(), ids.begin(), ids.end());
    if (newline == std::string_view::npos) break;
    out.insert(out.end(), newline_.begin(), newline_.end());
    text.remove_prefix(newline + 1);
  }
  return {};
}

}  // namespace assay
