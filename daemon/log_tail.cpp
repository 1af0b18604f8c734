#include "daemon/log_tail.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/file.h"
#include "base/limits.h"
#include "base/unique_handle.h"

namespace assay {
namespace {

// Symbolic links are resolved first: what counts is where the file really is.
bool is_inside(const std::string& home, const std::string& path) {
  std::error_code failed;
  const auto base = std::filesystem::weakly_canonical(home, failed);
  if (failed) return false;
  const auto file = std::filesystem::weakly_canonical(path, failed);
  if (failed) return false;
  const auto [end, rest] = std::mismatch(base.begin(), base.end(), file.begin(), file.end());
  return end == base.end() && rest != file.end();
}

}  // namespace

Result<LogChunk> read_log(const std::string& home, const std::string& path, int64_t offset, int64_t max_bytes) {
  if (!is_inside(home, path))
    return Error{ErrorCode::permission_denied, fmt::format("the log {} is not inside {}", path, home)};
  LogChunk chunk;
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd && errno == ENOENT) return chunk;
  if (!fd) return system_error("read", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return system_error("read", path);
  if (!S_ISREG(info.st_mode)) return Error{ErrorCode::failed_precondition, fmt::format("{} is no regular file", path)};
  chunk.size = info.st_size;
  const int64_t from = offset < 0 ? std::max<int64_t>(0, chunk.size + offset) : std::min(offset, chunk.size);
  constexpr auto most = static_cast<int64_t>(limits::log_chunk_bytes);
  const int64_t length = std::min(max_bytes <= 0 ? most : std::min(max_bytes, most), chunk.size - from);
  chunk.data.resize(static_cast<size_t>(length));
  size_t got = 0;
  while (got < chunk.data.size()) {
    const ssize_t n =
        ::pread(fd.get(), chunk.data.data() + got, chunk.data.size() - got, from + static_cast<int64_t>(got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("read", path);
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  chunk.data.resize(got);
  chunk.next_offset = from + static_cast<int64_t>(got);
  return chunk;
}

}  // namespace assay
