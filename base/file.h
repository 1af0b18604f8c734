// Whole-file reads and crash-safe whole-file writes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace assay {

// errno as an Error: "cannot <what> <path>: <reason>", with the code that fits the reason.
Error system_error(const char* what, const std::string& path);

// The whole file, at most max_bytes (0 = no limit); the error names the path and the reason.
Result<std::string> read_file(const std::string& path, size_t max_bytes = 0);

// Write `path` so that after a crash it holds either its old or its new content: temporary file beside it, fsync,
// rename, fsync of the folder. mode as in open(2). A path has one writer at a time: the temporary file is `path`.tmp.
Status write_file_atomically(const std::string& path, std::string_view content, unsigned mode = 0644);

Status sync_folder(const std::string& path);

// mkdir -p with mode for every folder it creates.
Status make_folders(const std::string& path, unsigned mode = 0755);

// sha256 in lower-case hex (OpenSSL).
std::string sha256_hex(std::string_view bytes);
// CRC-32 (IEEE 802.3, reflected 0xEDB88320), as in zlib's crc32.
uint32_t crc32(std::string_view bytes, uint32_t seed = 0);

}  // namespace assay
