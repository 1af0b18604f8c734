#include "worker/attempt/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/file.h"
#include "base/log.h"

namespace assay {
namespace {

Error errno_error(const char* what, const std::string& path) {
  const int saved = errno;
  const bool full = saved == ENOSPC || saved == EDQUOT || saved == EFBIG;
  return Error{full ? ErrorCode::resource_exhausted : ErrorCode::internal,
               fmt::format("cannot {} journal {}: {}", what, path, std::strerror(saved))};
}

// `record`: from 1.
Error damaged(const std::string& path, size_t offset, int64_t record, std::string_view what) {
  return Error{ErrorCode::data_loss, fmt::format("journal {} is damaged at byte {} (record {}): {}; the records before "
                                                 "it are good",
                                                 path, offset, record, what)};
}

// Reads up to `size` bytes at `offset`; fewer only at the end of the file.
Result<std::string> read_at(int fd, size_t offset, size_t size, const std::string& path) {
  std::string bytes(size, '\0');
  size_t got = 0;
  while (got < size) {
    const ssize_t n = ::pread(fd, bytes.data() + got, size - got, static_cast<off_t>(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("read", path);
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  bytes.resize(got);
  return bytes;
}

Result<size_t> size_of_file(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_error("stat", path);
  if (!S_ISREG(info.st_mode))
    return Error{ErrorCode::failed_precondition, fmt::format("journal {} is not a regular file", path)};
  return static_cast<size_t>(info.st_size);
}

Result<std::optional<JournalLayout>> layout_of(int fd, size_t file_size, const std::string& path) {
  ASSAY_ASSIGN(const std::string begin, read_at(fd, 0, limits::journal_header_bytes, path));
  return JournalLayout::of_file(begin, file_size, path);
}

// Whole good records of the file, whatever follows them in the last record's place.
Result<int64_t> count_good_records(int fd, const JournalLayout& layout, size_t file_size, const std::string& path) {
  constexpr size_t records_per_read = 1024;
  const size_t record_size = layout.record_size();
  int64_t good = 0;
  while (true) {
    const size_t offset = layout.offset(good);
    ASSAY_ASSIGN(const std::string bytes, read_at(fd, offset, records_per_read * record_size, path));
    for (size_t at = 0; at + record_size <= bytes.size(); at += record_size) {
      StepMetrics ignored;
      if (const auto problem = layout.decode(bytes.data() + at, good + 1, &ignored)) {
        if (offset + at + record_size < file_size) return damaged(path, offset + at, good + 1, *problem);
        return good;
      }
      ++good;
    }
    if (bytes.size() < records_per_read * record_size) return good;
  }
}

// The whole record or an error; how many bytes of it reached the file is unknown after an error.
Status write_record(int fd, std::string_view record, const std::string& path) {
  size_t written = 0;
  while (written < record.size()) {
    const ssize_t n = ::write(fd, record.data() + written, record.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("append to", path);
    written += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Result<JournalWriter> JournalWriter::open(const std::string& path, size_t max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!fd) return errno_error("open", path);
  ASSAY_ASSIGN(const size_t size, size_of_file(fd.get(), path));
  ASSAY_ASSIGN(const std::optional<JournalLayout> found, layout_of(fd.get(), size, path));
  const auto cut = [&](size_t bytes) -> Status {
    if (bytes == size || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0) return {};
    return errno_error("cut the torn tail of", path);
  };
  if (!found) {
    ASSAY_TRY(cut(0));
    JournalLayout layout = JournalLayout::newest();
    if (const Status written = write_record(fd.get(), layout.header(), path); !written.ok()) {
      if (::ftruncate(fd.get(), 0) != 0) return errno_error("take back the beginning of", path);
      return written.error();
    }
    return JournalWriter(std::move(fd), path, std::move(layout), 0, max_bytes);
  }
  if (const auto unknown = found->unknown_fields(); !unknown.empty())
    return Error{
        ErrorCode::failed_precondition,
        fmt::format("journal {} was begun by a newer Assay and has fields that this program does not know: {}; "
                    "go on with the newer program",
                    path, fmt::join(unknown, ", "))};
  ASSAY_ASSIGN(const int64_t records, count_good_records(fd.get(), *found, size, path));
  ASSAY_TRY(cut(found->offset(records)));
  return JournalWriter(std::move(fd), path, *found, records, max_bytes);
}

Status JournalWriter::append(const StepMetrics& metrics) {
  if (!fd_)
    return Error{ErrorCode::failed_precondition,
                 fmt::format("journal {} is closed: an earlier append failed and could not be taken back", path_)};
  const size_t bytes = layout_.offset(last_seq_);
  if (bytes + layout_.record_size() > max_bytes_)
    return Error{
        ErrorCode::resource_exhausted,
        fmt::format("journal {} holds {} records and is at its limit of {} bytes", path_, last_seq_, max_bytes_)};
  const Status written = write_record(fd_.get(), layout_.encode(last_seq_ + 1, metrics), path_);
  if (!written.ok()) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) fd_.reset();
    return written;
  }
  ++last_seq_;
  return {};
}

Status JournalReader::learn_layout(int fd) {
  if (layout_) return {};
  ASSAY_ASSIGN(const size_t file_size, size_of_file(fd, path_));
  ASSAY_ASSIGN(layout_, layout_of(fd, file_size, path_));
  if (!layout_) return {};
  for (const std::string& name : layout_->unknown_fields())
    log::warn_once(fmt::format("journals have a field {} that this program does not know; it is left out", name));
  return {};
}

Result<std::vector<JournalRecord>> JournalReader::read(int max) {
  std::vector<JournalRecord> records;
  UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT && last_seq_ == 0) return records;
  if (!fd) return errno_error("open", path_);
  ASSAY_TRY(learn_layout(fd.get()));
  if (!layout_) return records;
  ASSAY_ASSIGN(const size_t size, size_of_file(fd.get(), path_));  // now, as the file may have been begun meanwhile
  const size_t begin = offset();
  if (size < begin)
    return damaged(path_, size, last_seq_ + 1, fmt::format("the file ends here, but {} bytes were read before", begin));
  const size_t record_size = layout_->record_size();
  const size_t wanted = std::min((size - begin) / record_size, static_cast<size_t>(std::max(max, 0)));
  ASSAY_ASSIGN(const std::string bytes, read_at(fd.get(), begin, wanted * record_size, path_));
  records.reserve(wanted);
  for (size_t at = 0; at + record_size <= bytes.size(); at += record_size) {
    JournalRecord record{last_seq_ + 1, {}};
    if (const auto problem = layout_->decode(bytes.data() + at, record.seq, &record.metrics)) {
      const bool last = begin + at + record_size >= size;
      if (records.empty() && !last) return damaged(path_, begin + at, record.seq, *problem);
      return records;
    }
    records.push_back(record);
    ++last_seq_;
  }
  return records;
}

Status JournalReader::seek_after(int64_t seq) {
  if (seq < 0) return Error{ErrorCode::invalid_argument, fmt::format("cannot seek to record {} of {}", seq, path_)};
  if (seq > 0) {
    UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errno_error("open", path_);
    ASSAY_TRY(learn_layout(fd.get()));
    const size_t offset = layout_ ? layout_->offset(seq - 1) : 0;
    const size_t wanted = layout_ ? layout_->record_size() : 1;
    ASSAY_ASSIGN(const std::string bytes, read_at(fd.get(), offset, wanted, path_));
    if (!layout_ || bytes.size() < wanted)
      return damaged(path_, offset, seq, fmt::format("record {} is wanted, but the file ends before it does", seq));
    StepMetrics ignored;
    if (const auto problem = layout_->decode(bytes.data(), seq, &ignored)) return damaged(path_, offset, seq, *problem);
  }
  last_seq_ = seq;
  return {};
}

}  // namespace assay
