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

struct TextFiles {
  std::vector<std::string> paths;        // sorted; no file twice, however it is named
  std::vector<std::string> passed_over;  // in folders: files of other names, and symbolic links
};
// Files named in `inputs`, and for folders the *.txt, *.rst and *.md below them, plain or with .gz. Symbolic links
// inside folders are not followed: they name text that is there already, or lead elsewhere.
Result<TextFiles> find_text_files(const std::vector<std::string>& inputs);

struct Document {
  std::string text;
  std::string path;  // of its file
  int64_t line = 1;  // of the file, that it begins with
};

class TextReader {
 public:
  // Stops after max_bytes of text (0 = all), at a line's end where there is one.
  TextReader(std::vector<std::string> files, int64_t max_bytes);
  // The next document: not empty, valid UTF-8, at most limits::document_bytes; nothing at the end. Errors: a file that
  // cannot be read or decompressed; one that is not UTF-8 text (invalid_argument), see not_text().
  Result<std::optional<Document>> next();
  int64_t bytes() const { return bytes_; }                   // of the documents returned so far
  bool at_limit() const { return bytes_ >= max_bytes_; }     // the rest of the text is not read
  const std::string& not_text() const { return not_text_; }  // why a file is none: "line 3 holds the byte 0xE9, ..."

 private:
  Status fill(size_t size);
  Status open_next();
  std::string take_text(size_t size);

  std::vector<std::string> files_;
  int64_t max_bytes_;
  size_t next_file_ = 0;
  unique_handle<gzFile, ::gzclose_r> file_;
  std::string path_;     // of file_
  std::string pending_;  // read from file_ and not returned yet
  int64_t line_ = 1;     // that pending_ begins with
  bool at_end_ = false;  // of file_
  int64_t bytes_ = 0;
  std::string not_text_;
};

}  // namespace assay
