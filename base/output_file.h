// Output that people asked for: standard output, and files they named with -o.
#pragma once

#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

// A stream into a file descriptor, which it does not own, that remembers why a write failed: iostreams tell only that.
class FdStream : public std::ostream {
 public:
  explicit FdStream(int fd);
  ~FdStream() override;     // flushes
  int write_errno() const;  // of the first write that failed; 0 = none

 private:
  class Buffer;
  std::unique_ptr<Buffer> buffer_;
};

// Flushes `out`. An error names `what` ("standard output", a path) and the reason where the stream knows it.
Status check_written(std::ostream& out, const std::string& what);
// For the end of main: `status`; where something printed with std::cout or stdio was not written, a line on standard
// error, and `not_written` in place of a status of 0.
int checked_exit(const std::string& program, int status, int not_written = 1);

// A file that somebody named, written piece by piece.
//
// A regular file, or a new one, appears under its name only when it is complete, by rename; it keeps its mode and,
// where allowed, its owner. Symbolic links are followed: the link stays, its target is replaced. What cannot be
// replaced without changing what it is gets the bytes as they come: devices, FIFOs, files with several names (hard
// links), and files that are open already (/dev/fd/N, /proc/self/fd/N: added to, as by a shell).
class OutputFile {
 public:
  // Opening a FIFO waits for its reader.
  static Result<std::unique_ptr<OutputFile>> open(const std::string& path);
  ~OutputFile();  // removes what was written unless committed
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  std::ostream& stream() { return *stream_; }
  // Everything is on the disk, or with the device, when this succeeds; else a file that is replaced holds what it held.
  Status commit();

 private:
  OutputFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)), stream_(fd_.get()) {}
  std::string path_;     // as it was named
  std::string target_;   // what `partial_` is renamed to; empty = written through
  std::string partial_;  // beside the target
  UniqueFd fd_;
  std::optional<FdStream> stream_;
};

// Whether writing to `path` is writing to standard output: /dev/stdout, /dev/fd/1, or the file that it goes to.
bool is_standard_output(const std::string& path);

// The whole content at once.
Status write_output_file(const std::string& path, std::string_view content);

}  // namespace assay
