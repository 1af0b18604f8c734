// A first pass over the text of a corpus: which files are text, and how much there is.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/data/text_source.h"

namespace assay {

// A file that did not go into the corpus, not even in part.
struct SkippedFile {
  std::string path;
  std::string reason;  // "line 3 holds the byte 0xE9, which is not UTF-8 there"
};
struct Survey {
  std::vector<std::string> files;  // that the text is in, as far as it is read
  std::vector<SkippedFile> skipped;
  bool at_limit = false;     // max_bytes ends the text within, or at the end of, the last of `files`
  int64_t unread_files = 0;  // after that one
  int64_t documents = 0;
  int64_t bytes = 0;
};

// A file that turns out not to be UTF-8 text anywhere in it is left out whole. Errors: a file that cannot be read; no
// text in any of them.
Result<Survey> survey_text(const std::vector<std::string>& files, int64_t max_bytes);

// A line for everything that does not go in: named up to limits::skipped_files_shown, or counted.
void say_left_out(const Survey&, const TextFiles& found, const std::function<void(const std::string&)>& say);

// Every n-th document, so that the sample is spread over the corpus; at most limits::tokenizer_sample_bytes and a
// document.
Result<std::string> sample_text(const Survey&, int64_t max_bytes);

// "12.3 MB"
std::string megabytes(int64_t bytes);

}  // namespace assay
