// Whether the tokens of a text stand for that text: decode(encode(x)) == x.
#pragma once

#include <cstdint>
#include <string>

#include "engine/data/text_source.h"

namespace assay {

// How the text differs that the tokens of a document stand for. A tokenizer trained here gives everything back but the
// character U+2581, with which SentencePiece writes spaces.
struct RoundTrip {
  int64_t documents_changed = 0;
  int64_t bytes_changed = 0;  // of the text of those documents
  int64_t line_ends_lost = 0;
  int64_t unknown_tokens = 0;
  // Where the first difference is: the file, its line, and the text around it on either side. Empty path: nowhere.
  std::string path;
  int64_t line = 0;
  std::string text, decoded;

  void add(const RoundTrip& next);  // in the documents' order
};

// Of one document, without the unknown tokens.
RoundTrip compare_decoded(const Document& document, const std::string& decoded);

// A warning for a person. `documents` = all that were looked at.
std::string describe(const RoundTrip&, int64_t documents);

}  // namespace assay
