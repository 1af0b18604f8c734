#include "base/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <streambuf>

#include "base/file.h"

namespace assay {

namespace fs = std::filesystem;

// --- the stream ------------------------------------------------------------------------------------------------------

class FdStream::Buffer : public std::streambuf {
 public:
  explicit Buffer(int fd) : fd_(fd) { setp(bytes_.data(), bytes_.data() + bytes_.size()); }
  int write_errno() const { return errno_; }

 protected:
  int_type overflow(int_type c) override {
    if (!drain()) return traits_type::eof();
    if (!traits_type::eq_int_type(c, traits_type::eof())) sputc(traits_type::to_char_type(c));
    return traits_type::not_eof(c);
  }
  int sync() override { return drain() ? 0 : -1; }

 private:
  // What cannot be written is dropped: the stream has failed, and its owner is told so.
  bool drain() {
    const char* next = pbase();
    while (errno_ == 0 && next < pptr()) {
      const ssize_t n = ::write(fd_, next, static_cast<size_t>(pptr() - next));
      if (n >= 0)
        next += n;
      else if (errno == EAGAIN)  // another program made our terminal or pipe non-blocking
        wait_until_writable();
      else if (errno != EINTR)
        errno_ = errno;
    }
    setp(bytes_.data(), bytes_.data() + bytes_.size());
    return errno_ == 0;
  }
  void wait_until_writable() const {
    pollfd waited{.fd = fd_, .events = POLLOUT};
    ::poll(&waited, 1, -1);
  }

  int fd_;
  int errno_ = 0;
  std::array<char, 65'536> bytes_;
};

FdStream::FdStream(int fd) : std::ostream(nullptr), buffer_(std::make_unique<Buffer>(fd)) {
  rdbuf(buffer_.get());
}
FdStream::~FdStream() {
  flush();
}
int FdStream::write_errno() const {
  return buffer_->write_errno();
}

Status check_written(std::ostream& out, const std::string& what) {
  out.flush();
  if (out) return {};
  const auto* stream = dynamic_cast<const FdStream*>(&out);
  errno = stream ? stream->write_errno() : 0;
  if (errno != 0) return system_error("write to", what);
  return Error{ErrorCode::internal, fmt::format("cannot write to {}", what)};
}

int checked_exit(const std::string& program, int status, int not_written) {
  errno = 0;
  std::cout.flush();
  if (std::fflush(stdout) == 0 && std::cout && !std::ferror(stdout)) return status;
  const std::string why = errno != 0 ? std::strerror(errno) : "is the disk full?";
  std::cerr << program << ": cannot write to standard output: " << why << "\n";
  return status == 0 ? not_written : status;
}

// --- the file --------------------------------------------------------------------------------------------------------

namespace {

constexpr int links_followed = 40;  // as the kernel does

struct Target {
  std::string path;           // the last of the links
  bool open_already = false;  // it leads through /proc, to an open file
};

// Where a path leads when every symbolic link is followed; the last part need not exist.
Result<Target> follow_links(const std::string& path) {
  fs::path at = path;
  for (int i = 0; i < links_followed; ++i) {
    std::error_code failed;
    const fs::path folder = fs::canonical(at.has_parent_path() ? at.parent_path() : fs::path("."), failed);
    if (failed) {
      errno = failed.value();
      return system_error("open the folder of", path);
    }
    at = folder / at.filename();
    if (!fs::is_symlink(fs::symlink_status(at, failed))) return Target{at.string()};
    if (at.string().starts_with("/proc/")) return Target{path, true};
    const fs::path next = fs::read_symlink(at, failed);
    at = next.is_absolute() ? next : folder / next;
  }
  errno = ELOOP;
  return system_error("open", path);
}

Result<UniqueFd> open_through(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | flags));
  if (!fd) return system_error("open", path);
  return fd;
}

// A new file for this process alone; one left behind by a process of the same number that died is replaced.
Result<UniqueFd> make_partial(const std::string& partial) {
  constexpr int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  UniqueFd fd(::open(partial.c_str(), flags, 0666));
  if (!fd && errno == EEXIST && ::unlink(partial.c_str()) == 0) fd.reset(::open(partial.c_str(), flags, 0666));
  if (!fd) return system_error("create", partial);
  return fd;
}

}  // namespace

Result<std::unique_ptr<OutputFile>> OutputFile::open(const std::string& path) {
  if (path.empty()) return Error{ErrorCode::invalid_argument, "the name of the file is empty"};
  ASSAY_ASSIGN(const Target target, follow_links(path));
  struct stat info {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) return system_error("open", path);
  if ((exists && S_ISDIR(info.st_mode)) || path.ends_with('/'))
    return Error{ErrorCode::invalid_argument, fmt::format("{} is a folder; name a file in it", path)};
  if (target.open_already || (exists && (!S_ISREG(info.st_mode) || info.st_nlink > 1))) {
    const int flags = target.open_already ? O_APPEND : S_ISREG(info.st_mode) ? O_TRUNC : 0;
    ASSAY_ASSIGN(UniqueFd fd, open_through(path, flags));
    return std::unique_ptr<OutputFile>(new OutputFile(path, std::move(fd)));
  }
  // A rename would also replace a file that its owner made read-only.
  if (exists && ::access(target.path.c_str(), W_OK) != 0) return system_error("write to", path);
  const std::string partial = fmt::format("{}.partial.{}", target.path, ::getpid());
  ASSAY_ASSIGN(UniqueFd fd, make_partial(partial));
  auto file = std::unique_ptr<OutputFile>(new OutputFile(path, std::move(fd)));
  file->target_ = target.path;
  file->partial_ = partial;
  if (!exists) return file;
  const bool same_owner = ::fchown(file->fd_.get(), info.st_uid, info.st_gid) == 0;
  // Without its owner a file must not keep bits that lend the owner's rights.
  if (::fchmod(file->fd_.get(), info.st_mode & (same_owner ? 07777 : 0777)) != 0) return system_error("chmod", partial);
  return file;
}

OutputFile::~OutputFile() {
  stream_.reset();
  if (!partial_.empty()) ::unlink(partial_.c_str());
}

Status OutputFile::commit() {
  ASSAY_TRY(check_written(*stream_, path_));
  const bool replaced = !target_.empty();
  if (replaced && ::fsync(fd_.get()) != 0) return system_error("write to", path_);
  stream_.reset();
  if (::close(fd_.release()) != 0) return system_error("write to", path_);
  if (!replaced) return {};
  if (::rename(partial_.c_str(), target_.c_str()) != 0) return system_error("rename to", target_);
  partial_.clear();
  return {};
}

bool is_standard_output(const std::string& path) {
  struct stat named {};
  struct stat standard {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(STDOUT_FILENO, &standard) == 0 &&
         named.st_dev == standard.st_dev && named.st_ino == standard.st_ino;
}

Status write_output_file(const std::string& path, std::string_view content) {
  ASSAY_ASSIGN(const std::unique_ptr<OutputFile> file, OutputFile::open(path));
  file->stream() << content;
  return file->commit();
}

}  // namespace assay
