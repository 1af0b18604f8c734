#include "worker/attempt_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/limits.h"
#include "base/unique_handle.h"

namespace assay {
namespace {

Error failure(const char* what, const std::string& path) {
  return {ErrorCode::internal, fmt::format("cannot {} log {}: {}", what, path, std::strerror(errno))};
}

// The last max_bytes of the file, from the start of a line where there is one. `size` is the file's.
std::string tail_of(int fd, size_t size, size_t max_bytes) {
  std::string text(std::min(size, max_bytes), '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), static_cast<off_t>(size - text.size()));
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  if (size <= max_bytes) return text;
  const size_t line_end = text.find('\n');
  return line_end == std::string::npos || line_end + 1 == text.size() ? text : text.substr(line_end + 1);
}

}  // namespace

Status cap_log(const std::string& path, size_t cap, size_t slack) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC));
  if (!fd) return errno == ENOENT ? Status() : failure("open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return failure("stat", path);
  const size_t size = static_cast<size_t>(info.st_size);
  if (size <= cap + slack) return {};
  const std::string kept = tail_of(fd.get(), size, limits::log_tail_bytes);
  if (::ftruncate(fd.get(), static_cast<off_t>(cap)) != 0) return failure("cut", path);
  const std::string text = fmt::format(
      "\n[assay-worker: the log passed its limit of {} bytes; {} bytes were cut here, the last lines follow]\n{}", cap,
      size - cap - kept.size(), kept);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return failure("write to", path);
  return {};
}

std::string log_tail(const std::string& path, size_t max_bytes) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return {};
  return tail_of(fd.get(), static_cast<size_t>(info.st_size), max_bytes);
}

}  // namespace assay
