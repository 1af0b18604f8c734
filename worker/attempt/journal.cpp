#include "worker/attempt/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/file.h"

namespace assay {
namespace {

static_assert(std::endian::native == std::endian::little, "the journal stores numbers as this machine does");

constexpr uint8_t payload_version = 1;
constexpr size_t header_size = journal_record_size - journal_payload_size;
using Record = std::array<char, journal_record_size>;

Error errno_error(const char* what, const std::string& path) {
  const int saved = errno;
  const bool full = saved == ENOSPC || saved == EDQUOT || saved == EFBIG;
  return Error{full ? ErrorCode::resource_exhausted : ErrorCode::internal,
               fmt::format("cannot {} journal {}: {}", what, path, std::strerror(saved))};
}

Error damaged(const std::string& path, size_t offset, std::string_view what) {
  return Error{ErrorCode::data_loss, fmt::format("journal {} is damaged at byte {} (record {}): {}; the records before "
                                                 "it are good",
                                                 path, offset, offset / journal_record_size + 1, what)};
}

template <class T>
void put(char*& at, T value) {
  std::memcpy(at, &value, sizeof value);
  at += sizeof value;
}

template <class T>
void get(const char*& at, T& value) {
  std::memcpy(&value, at, sizeof value);
  at += sizeof value;
}

// The one list of payload fields: `visit` sees them in file order.
template <class Metrics, class Visit>
void for_each_field(Metrics& m, Visit visit) {
  visit(m.step);
  visit(m.loss);
  visit(m.dt_ms);
  visit(m.tok_per_sec);
  visit(m.mfu);
  visit(m.lr_scale);
  visit(m.grad_norm);
  visit(m.expert_load_min);
  visit(m.expert_load_max);
  visit(m.peak_mem_mib);
  visit(m.val_loss);
  visit(m.unix_ms);
}

uint32_t record_crc(const char* record) {
  return crc32({record + 8, journal_record_size - 8});
}

Record encode(uint64_t seq, const StepMetrics& metrics) {
  Record record{};
  char* at = record.data() + 8;
  put(at, seq);
  put(at, payload_version);
  for_each_field(metrics, [&](const auto& field) { put(at, field); });
  at = record.data();
  put(at, static_cast<uint32_t>(journal_payload_size));
  put(at, record_crc(record.data()));
  return record;
}

// Fills `out`, or says what is wrong with the journal_record_size bytes at `record`.
std::optional<std::string> decode(const char* record, int64_t expected_seq, JournalRecord* out) {
  uint32_t length = 0, crc = 0;
  uint64_t seq = 0;
  uint8_t version = 0;
  const char* at = record;
  get(at, length);
  get(at, crc);
  get(at, seq);
  get(at, version);
  if (length != journal_payload_size)
    return fmt::format("payload length is {}, but records of version {} have {}", length, payload_version,
                       journal_payload_size);
  if (crc != record_crc(record)) return "the CRC-32 does not match";
  if (seq != static_cast<uint64_t>(expected_seq))
    return fmt::format("sequence number is {}, expected {}", seq, expected_seq);
  if (version != payload_version)
    return fmt::format("payload version is {}, this program knows {}", version, payload_version);
  out->seq = expected_seq;
  for_each_field(out->metrics, [&](auto& field) { get(at, field); });
  return std::nullopt;
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

// Whole good records of the file, whatever follows them in the last record's place.
Result<int64_t> count_good_records(int fd, size_t file_size, const std::string& path) {
  constexpr size_t records_per_read = 1024;
  int64_t good = 0;
  while (true) {
    const size_t offset = static_cast<size_t>(good) * journal_record_size;
    ASSAY_ASSIGN(const std::string bytes, read_at(fd, offset, records_per_read * journal_record_size, path));
    for (size_t at = 0; at + journal_record_size <= bytes.size(); at += journal_record_size) {
      JournalRecord ignored;
      if (const auto problem = decode(bytes.data() + at, good + 1, &ignored)) {
        if (offset + at + journal_record_size < file_size) return damaged(path, offset + at, *problem);
        return good;
      }
      ++good;
    }
    if (bytes.size() < records_per_read * journal_record_size) return good;
  }
}

// The whole record or an error; how many bytes of it reached the file is unknown after an error.
Status write_record(int fd, const Record& record, const std::string& path) {
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
  ASSAY_ASSIGN(const int64_t records, count_good_records(fd.get(), size, path));
  const size_t good_bytes = static_cast<size_t>(records) * journal_record_size;
  if (good_bytes != size && ::ftruncate(fd.get(), static_cast<off_t>(good_bytes)) != 0)
    return errno_error("cut the torn tail of", path);
  return JournalWriter(std::move(fd), path, records, max_bytes);
}

Status JournalWriter::append(const StepMetrics& metrics) {
  if (!fd_)
    return Error{ErrorCode::failed_precondition,
                 fmt::format("journal {} is closed: an earlier append failed and could not be taken back", path_)};
  const size_t bytes = static_cast<size_t>(last_seq_) * journal_record_size;
  if (bytes + journal_record_size > max_bytes_)
    return Error{
        ErrorCode::resource_exhausted,
        fmt::format("journal {} holds {} records and is at its limit of {} bytes", path_, last_seq_, max_bytes_)};
  const Status written = write_record(fd_.get(), encode(static_cast<uint64_t>(last_seq_ + 1), metrics), path_);
  if (!written.ok()) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) fd_.reset();
    return written;
  }
  ++last_seq_;
  return {};
}

Result<std::vector<JournalRecord>> JournalReader::read(int max) {
  std::vector<JournalRecord> records;
  UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT && last_seq_ == 0) return records;
  if (!fd) return errno_error("open", path_);
  ASSAY_ASSIGN(const size_t size, size_of_file(fd.get(), path_));
  const size_t begin = static_cast<size_t>(offset_);
  if (size < begin)
    return damaged(path_, size, fmt::format("the file ends here, but {} bytes were read before", begin));
  const size_t wanted = std::min((size - begin) / journal_record_size, static_cast<size_t>(std::max(max, 0)));
  ASSAY_ASSIGN(const std::string bytes, read_at(fd.get(), begin, wanted * journal_record_size, path_));
  records.reserve(wanted);
  for (size_t at = 0; at + journal_record_size <= bytes.size(); at += journal_record_size) {
    JournalRecord record;
    if (const auto problem = decode(bytes.data() + at, last_seq_ + 1, &record)) {
      const bool last = begin + at + journal_record_size >= size;
      if (records.empty() && !last) return damaged(path_, begin + at, *problem);
      return records;
    }
    records.push_back(record);
    ++last_seq_;
    offset_ += static_cast<int64_t>(journal_record_size);
  }
  return records;
}

Status JournalReader::seek_after(int64_t seq) {
  if (seq < 0) return Error{ErrorCode::invalid_argument, fmt::format("cannot seek to record {} of {}", seq, path_)};
  if (seq > 0) {
    UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errno_error("open", path_);
    const size_t offset = static_cast<size_t>(seq - 1) * journal_record_size;
    ASSAY_ASSIGN(const std::string bytes, read_at(fd.get(), offset, journal_record_size, path_));
    if (bytes.size() < journal_record_size)
      return damaged(path_, offset, fmt::format("record {} is wanted, but the file ends before it does", seq));
    JournalRecord ignored;
    if (const auto problem = decode(bytes.data(), seq, &ignored)) return damaged(path_, offset, *problem);
  }
  last_seq_ = seq;
  offset_ = seq * static_cast<int64_t>(journal_record_size);
  return {};
}

}  // namespace assay
