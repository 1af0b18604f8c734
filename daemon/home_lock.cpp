#include "daemon/home_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace assay {
namespace {

Status check_folder(const std::string& home) {
  struct stat info {};
  if (::stat(home.c_str(), &info) != 0)
    return Error{ErrorCode::permission_denied, fmt::format("cannot use {}: {}", home, std::strerror(errno))};
  if (!S_ISDIR(info.st_mode))
    return Error{ErrorCode::failed_precondition, fmt::format("{} is not a folder; choose another ASSAY_HOME", home)};
  if (info.st_uid != ::geteuid())
    return Error{ErrorCode::permission_denied,
                 fmt::format("{} belongs to user {}, not to you; choose another ASSAY_HOME", home, info.st_uid)};
  if ((info.st_mode & 0022) != 0)
    return Error{ErrorCode::permission_denied,
                 fmt::format("{} can be written by other users; run: chmod 700 {}", home, home)};
  if (::access(home.c_str(), W_OK | X_OK) != 0)
    return Error{ErrorCode::permission_denied,
                 fmt::format("{} cannot be written: {}; choose another ASSAY_HOME", home, std::strerror(errno))};
  return {};
}

}  // namespace

Result<UniqueFd> lock_home(const std::string& home) {
  ASSAY_TRY(make_folders(home, 0700));
  ASSAY_TRY(check_folder(home));
  const std::string path = home + "/assayd.lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return Error{ErrorCode::permission_denied, fmt::format("cannot open {}: {}", path, std::strerror(errno))};
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK)
      return Error{ErrorCode::internal, fmt::format("cannot lock {}: {}", path, std::strerror(errno))};
    char holder[32] = {};
    const ssize_t got = ::pread(fd.get(), holder, sizeof holder - 1, 0);
    return Error{ErrorCode::failed_precondition,
                 fmt::format("another daemon (pid {}) serves {}; stop it with: assay --home {} down",
                             got > 0 ? holder : "unknown", home, home)};
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return Error{ErrorCode::resource_exhausted, fmt::format("cannot write {}: {}", path, std::strerror(errno))};
  return fd;
}

}  // namespace assay
