#include "cli/new_file.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace assay {

NewFile::NewFile(std::string path)
    : path_(std::move(path)),
      partial_(fmt::format("{}.partial.{}", path_, ::getpid())),
      stream_(partial_, std::ios::binary | std::ios::trunc),
      opened_(stream_.is_open()) {}

NewFile::~NewFile() {
  if (opened_ && !committed_) std::remove(partial_.c_str());
}

Status NewFile::commit() {
  if (!opened_)
    return Error{ErrorCode::invalid_argument, fmt::format("cannot write {}: is the folder there and yours?", path_)};
  stream_.close();
  if (!stream_) return Error{ErrorCode::resource_exhausted, fmt::format("cannot write {}: is the disk full?", path_)};
  if (std::rename(partial_.c_str(), path_.c_str()) != 0)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("cannot rename {} to {}: {}", partial_, path_, std::strerror(errno))};
  committed_ = true;
  return {};
}

}  // namespace assay
