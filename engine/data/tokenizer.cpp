#include "engine/data/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <charconv>
#include <optional>
#include <unordered_map>

#include "base/limits.h"
#include "base/utf8.h"

namespace assay {
namespace {

// The lines of a text, one after another; a longer one than limits::tokenizer_line_bytes in parts. Words begin with
// their space, so a line cut in front of a space has the same words as before. Where there is none a word is cut; of
// such words no more than limits::tokenizer_long_word_bytes are given out.
class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(std::string_view text) : rest_(text) { Next(); }
  bool done() const override { return done_; }
  void Next() override {
    bool cut_word = false;
    do {
      done_ = rest_.empty();
      if (done_) return;
      const size_t newline = std::min(rest_.find('\n'), rest_.size());
      const size_t space = newline <= limits::tokenizer_line_bytes ? 0 : last_space();
      cut_word = newline > limits::tokenizer_line_bytes && space == 0;
      const size_t end = cut_word ? cut_end(rest_, limits::tokenizer_line_bytes).size() : space > 0 ? space : newline;
      line_ = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + (end == newline), rest_.size()));
      if (cut_word) cut_bytes_ += end;
    } while (cut_word && cut_bytes_ > limits::tokenizer_long_word_bytes);
  }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  // Of a line that is too long, how much comes before its last space in reach; 0 if there is none but in front.
  size_t last_space() const {
    const size_t space = rest_.substr(0, limits::tokenizer_line_bytes).rfind(' ');
    return space == std::string_view::npos ? 0 : space;
  }

  std::string_view rest_;
  std::string line_;
  size_t cut_bytes_ = 0;
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
      {"max_sentence_length", std::to_string(limits::tokenizer_line_bytes)},  // longer lines would be left out
      {"minloglevel", "2"},                                                   // only errors on stderr
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
  ASSAY_TRY(tokenizer.encode_whole("\n", tokenizer.newline_));
  // Line ends alone and in a row, beside words and spaces: whatever makes a difference shows here.
  const std::string_view probe = "a\nb\n\n\n c \n\n  d\n\n\n\n";
  std::vector<uint16_t> whole, by_line;
  ASSAY_TRY(tokenizer.encode_whole(probe, whole));
  ASSAY_TRY(tokenizer.encode_by_line(probe, by_line));
  tokenizer.by_line_ = whole == by_line;
  return tokenizer;
}

int Tokenizer::vocab_size() const {
  return processor_->GetPieceSize();
}

int Tokenizer::separator_id() const {
  return processor_->bos_id() >= 0 ? processor_->bos_id() : processor_->eos_id();
}

int Tokenizer::unknown_id() const {
  return processor_->unk_id();
}

Status Tokenizer::encode(std::string_view text, std::vector<uint16_t>& out) const {
  return by_line_ ? encode_by_line(text, out) : encode_whole(text, out);
}

Status Tokenizer::encode_whole(std::string_view text, std::vector<uint16_t>& out) const {
  std::vector<int> ids;
  if (const auto status = processor_->Encode({text.data(), text.size()}, &ids); !status.ok())
    return Error{ErrorCode::internal, fmt::format("SentencePiece could not encode: {}", status.ToString())};
  out.insert(out.end(), ids.begin(), ids.end());
  return {};
}

Status Tokenizer::encode_by_line(std::string_view text, std::vector<uint16_t>& out) const {
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    ASSAY_TRY(encode_whole(text.substr(0, newline), out));
    if (newline == std::string_view::npos) break;
    out.insert(out.end(), newline_.begin(), newline_.end());
    text.remove_prefix(newline + 1);
  }
  return {};
}

Result<std::string> Tokenizer::decode(std::span<const uint16_t> tokens) const {
  std::string text;
  if (const auto status = processor_->Decode(std::vector<int>(tokens.begin(), tokens.end()), &text); !status.ok())
    return Error{ErrorCode::internal, fmt::format("SentencePiece could not decode: {}", status.ToString())};
  return text;
}

}  // namespace assay
