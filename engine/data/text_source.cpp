#include "engine/data/text_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "base/limits.h"
#include "base/utf8.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

bool has_text_name(const fs::path& path) {
  std::string name = path.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  return name.ends_with(".txt") || name.ends_with(".rst") || name.ends_with(".md");
}

Status search_folder(const std::string& folder, TextFiles& found) {
  std::error_code failure;
  fs::recursive_directory_iterator entries(folder, failure);
  for (; !failure && entries != fs::recursive_directory_iterator(); entries.increment(failure)) {
    const bool link = entries->is_symlink(failure);  // asked first: a link may lead nowhere
    if (!link && entries->is_directory(failure)) continue;
    const bool taken = !link && entries->is_regular_file(failure) && has_text_name(entries->path());
    (taken ? found.paths : found.passed_over).push_back(entries->path().string());
  }
  if (failure) return Error{ErrorCode::not_found, fmt::format("cannot search {}: {}", folder, failure.message())};
  return {};
}

// The first byte that is not part of UTF-8 text, or text.size(). NUL counts as binary, not as text.
size_t first_bad_byte(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Character c = first_character(text.substr(at));
    if (!c.valid || c.code == 0) break;
    at += c.bytes;
  }
  return at;
}

int64_t line_ends(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n');
}

// A folder that is named twice, or reached through a link, must not put its text into the corpus twice: the second copy
// of a validation document would be trained on.
void remove_repeated(std::vector<std::string>& paths) {
  std::sort(paths.begin(), paths.end());
  std::set<std::string> seen;
  std::erase_if(paths, [&](const std::string& path) {
    std::error_code failure;
    const fs::path real = fs::canonical(path, failure);
    return !seen.insert(failure ? path : real.string()).second;
  });
}

// Where to cut text that goes on: after the last line's end, else before an unfinished UTF-8 sequence; 0 if there is no
// more than that.
size_t cut_position(std::string_view text) {
  if (const size_t newline = text.rfind('\n'); newline != std::string_view::npos) return newline + 1;
  size_t end = text.size();
  while (end > 0 && text.size() - end < 4 && is_continuation(text[end - 1])) --end;
  if (end > 0 && static_cast<unsigned char>(text[end - 1]) >= 0xC0) --end;
  return end > 0 || text.size() < 4 ? end : text.size();
}

}  // namespace

Result<TextFiles> find_text_files(const std::vector<std::string>& inputs) {
  TextFiles files;
  for (const std::string& input : inputs) {
    std::error_code failure;
    const fs::file_status status = fs::status(input, failure);
    if (!fs::exists(status)) return Error{ErrorCode::not_found, fmt::format("there is no file or folder {}", input)};
    if (fs::is_directory(status))
      ASSAY_TRY(search_folder(input, files));
    else if (fs::is_regular_file(status))
      files.paths.push_back(input);
    else
      return Error{ErrorCode::invalid_argument, fmt::format("{} is neither a regular file nor a folder", input)};
  }
  remove_repeated(files.paths);
  remove_repeated(files.passed_over);
  if (files.paths.empty())
    return Error{ErrorCode::not_found,
                 fmt::format("there are no text files in {}: folders are searched for *.txt, *.rst and "
                             "*.md (also with .gz); name other files one by one",
                             fmt::join(inputs, ", "))};
  return files;
}

TextReader::TextReader(std::vector<std::string> files, int64_t max_bytes)
    : files_(std::move(files)), max_bytes_(max_bytes == 0 ? INT64_MAX : max_bytes) {}

// Reads on until pending_ has `size` bytes or the file ends.
Status TextReader::fill(size_t size) {
  std::array<char, 1 << 16> chunk;
  while (!at_end_ && pending_.size() < size) {
    const int n = ::gzread(file_.get(), chunk.data(), static_cast<unsigned>(chunk.size()));
    int code = Z_OK;
    const char* message = ::gzerror(file_.get(), &code);
    if (code == Z_ERRNO)
      return Error{ErrorCode::data_loss, fmt::format("cannot read {}: {}", path_, std::strerror(errno))};
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END))
      return Error{ErrorCode::data_loss, fmt::format("cannot read {}", message)};  // zlib puts the path in front
    if (n == 0) at_end_ = true;
    pending_.append(chunk.data(), static_cast<size_t>(n));
  }
  return {};
}

std::string TextReader::take_text(size_t size) {
  size_t length = pending_.size();
  if (length > size || !at_end_) length = cut_position(std::string_view(pending_).substr(0, size));
  std::string text = pending_.substr(0, length);
  pending_.erase(0, length);
  return text;
}

Status TextReader::open_next() {
  path_ = files_[next_file_++];
  file_.reset(::gzopen(path_.c_str(), "rb"));
  if (!file_) return system_error("open", path_);
  pending_.clear();
  line_ = 1;
  at_end_ = false;
  return {};
}

Result<std::optional<Document>> TextReader::next() {
  while (!at_limit()) {
    if (!file_) {
      if (next_file_ == files_.size()) break;
      ASSAY_TRY(open_next());
    }
    const auto left = static_cast<size_t>(max_bytes_ - bytes_);
    const size_t size = std::min(limits::document_bytes, left);
    ASSAY_TRY(fill(size));
    Document document{take_text(size), path_, line_};
    const std::string_view text = document.text;
    line_ += line_ends(text);
    if (const size_t bad = first_bad_byte(text); bad < text.size()) {
      const int byte = static_cast<unsigned char>(text[bad]);
      not_text_ = fmt::format("line {} holds {}", document.line + line_ends(text.substr(0, bad)),
                              byte == 0 ? "a NUL byte: this is not text"
                                        : fmt::format("the byte 0x{:02X}, which is not UTF-8 there", byte));
      return Error{ErrorCode::invalid_argument, fmt::format("{}: {}", path_, not_text_)};
    }
    if (at_end_ && pending_.empty()) file_.reset();
    if (text.empty() && file_) max_bytes_ = bytes_;  // what is left of the limit is less than a character
    if (text.empty()) continue;
    bytes_ += static_cast<int64_t>(text.size());
    if (size == left && file_) max_bytes_ = bytes_;  // what is left of the limit would be a part of a line
    return std::optional(std::move(document));
  }
  return std::optional<Document>();
}

}  // namespace assay
