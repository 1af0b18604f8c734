// The text files of a corpus as a stream of documents.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

// Files named in `inputs`, and for folders the *.txt, *.rst and *.md below them, plain or with .gz. Sorted, each once.
// Symbolic links inside folders are not followed: they name text that is there already, or lead elsewhere.
Result<std::vector<std::string>> find_text_files(const std::vector<std::string>& inputs);

// Reads the files in order, decompressing .gz. One pass; make another reader to read again.
class TextReader {
 public:
  // Stops after max_bytes of text (0 = all), at a line's end where there is one.
  TextReader(std::vector<std::string> files, int64_t max_bytes);
  // The next document: not empty, valid UTF-8, at most limits::document_bytes; nothing at the end. A file is left at
  // the first part that is not UTF-8 text. Errors: a file that cannot be read or decompressed.
  Result<std::optional<std::string>> next();
  int64_t bytes() const { return bytes_; }                  // of the documents returned so far
  int64_t skipped_files() const { return skipped_files_; }  // left because they are not UTF-8 text

 private:
  Status fill(size_t size);
  std::string take_document(size_t size);

  std::vector<std::string> files_;
  int64_t max_bytes_;
  size_t next_file_ = 0;
  unique_handle<gzFile, ::gzclose_r> file_;
  std::string path_;     // of file_
  std::string pending_;  // read from file_ and not returned yet
  bool at_end_ = false;  // of file_
  int64_t bytes_ = 0;
  int64_t skipped_files_ = 0;
};

}  // namespace assay
