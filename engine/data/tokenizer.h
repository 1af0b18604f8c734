// A SentencePiece model: trained here, or made elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace assay {

class Tokenizer {
 public:
  // BPE with exactly vocab_size pieces: unknown, BOS, EOS, 256 bytes, then learned ones. No normalisation and spaces
  // kept, so decoding gives the text back byte for byte. If the text does not support the vocabulary, the error says
  // what would do.
  static Result<Tokenizer> train(const std::string& text, int vocab_size);
  // `model` is the content of a .model file; `path` is for messages. Refused if a token would not fit into uint16, or
  // if the model has neither BOS nor EOS.
  static Result<Tokenizer> load(std::string model, const std::string& path);
  Tokenizer(Tokenizer&&) noexcept;
  ~Tokenizer();

  const std::string& model() const { return model_; }
  int vocab_size() const;
  int separator_id() const;  // BOS, or EOS if there is no BOS
  int unknown_id() const;    // what stands for text that has no piece
  // Appends the tokens of `text` to `out`. Any thread.
  Status encode(std::string_view text, std::vector<uint16_t>& out) const;
  // The text that tokens stand for. A model made elsewhere need not give back what was encoded. Any thread.
  Result<std::string> decode(std::span<const uint16_t> tokens) const;

 private:
  Tokenizer(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor, std::string model);
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  Status encode_whole(std::string_view text, std::vector<uint16_t>& out) const;
  Status encode_by_line(std::string_view text, std::vector<uint16_t>& out) const;
  std::string model_;
  // Line by line is 4 times as fast as all at once, and the same for models trained here; not for those that put a
  // space in front, or fold line ends. Tried in load().
  bool by_line_ = false;
  std::vector<uint16_t> newline_;  // the tokens of "\n"
};

}  // namespace assay
