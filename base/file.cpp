#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "base/unique_handle.h"

namespace assay {

Error system_error(const char* what, const std::string& path) {
  const int saved = errno;
  ErrorCode code = ErrorCode::internal;
  if (saved == ENOENT) code = ErrorCode::not_found;
  if (saved == EACCES || saved == EPERM || saved == EROFS) code = ErrorCode::permission_denied;
  if (saved == ENOSPC || saved == EDQUOT) code = ErrorCode::resource_exhausted;
  return Error{code, fmt::format("cannot {} {}: {}", what, path, std::strerror(saved))};
}

namespace {

std::string folder_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

Status write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("write", path);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}

}  // namespace

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return system_error("open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return system_error("stat", path);
  if (S_ISDIR(info.st_mode)) return Error{ErrorCode::invalid_argument, fmt::format("{} is a folder, not a file", path)};
  std::string text;
  std::array<char, 65536> chunk;
  while (true) {
    const ssize_t n = ::read(fd.get(), chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("read", path);
    if (n == 0) return text;
    text.append(chunk.data(), static_cast<size_t>(n));
    if (max_bytes != 0 && text.size() > max_bytes)
      return Error{ErrorCode::resource_exhausted, fmt::format("{} is larger than {} bytes", path, max_bytes)};
  }
}

Status write_file_atomically(const std::string& path, std::string_view content, unsigned mode) {
  const std::string temporary = path + ".tmp";
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd) return system_error("create", temporary);
  Status written = write_all(fd.get(), content, temporary);
  if (written.ok() && ::fsync(fd.get()) != 0) written = system_error("fsync", temporary);
  if (written.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) written = system_error("rename to", path);
  if (!written.ok()) {
    ::unlink(temporary.c_str());
    return written;
  }
  return sync_folder(folder_of(path));
}

Status sync_folder(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return system_error("open folder", path);
  if (::fsync(fd.get()) != 0) return system_error("fsync folder", path);
  return {};
}

Status make_folders(const std::string& path, unsigned mode) {
  if (path.empty()) return {};
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return {};
    return Error{ErrorCode::failed_precondition, fmt::format("{} exists and is not a folder", path)};
  }
  if (const std::string parent = folder_of(path); parent != path) ASSAY_TRY(make_folders(parent, mode));
  if (::mkdir(path.c_str(), mode) == 0) return {};
  const bool made_by_another = errno == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  return made_by_another ? Status() : system_error("create folder", path);
}

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1)
    throw std::runtime_error("sha256 is not available in this OpenSSL");
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

uint32_t crc32(std::string_view bytes, uint32_t seed) {
  static constexpr auto table = make_crc_table();
  uint32_t c = ~seed;
  for (const unsigned char byte : bytes) c = table[(c ^ byte) & 0xFF] ^ (c >> 8);
  return ~c;
}

}  // namespace assay
