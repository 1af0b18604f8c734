#include "engine/data/staging.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/log.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

enum class Target { missing, empty, corpus };

Error not_replaceable(const std::string& target, const std::string& why) {
  return Error{ErrorCode::already_exists,
               fmt::format("will not replace {}: {}; choose another folder, or empty this one", target, why)};
}

// Files that the corpus.json in `target` says belong to it.
Result<std::set<std::string>> listed_files(const std::string& target) {
  const auto text = read_file(target + "/corpus.json");
  if (!text.ok()) return not_replaceable(target, "it is not empty and holds no corpus.json of `assay data prepare`");
  try {
    auto files = nlohmann::json::parse(*text).at("files").get<std::set<std::string>>();
    files.insert("corpus.json");
    return files;
  } catch (const nlohmann::json::exception&) {
    return not_replaceable(target, "its corpus.json does not list the corpus's files");
  }
}

Result<Target> inspect(const std::string& target) {
  std::error_code failure;
  const fs::file_status status = fs::status(target, failure);
  if (status.type() == fs::file_type::not_found) return Target::missing;
  if (!fs::is_directory(status)) return not_replaceable(target, "it is not a folder");
  std::set<std::string> present;
  fs::directory_iterator entries(target, failure);
  for (; !failure && entries != fs::directory_iterator(); entries.increment(failure))
    present.insert(entries->path().filename().string());
  if (failure) return Error{ErrorCode::permission_denied, fmt::format("cannot read {}: {}", target, failure.message())};
  if (present.empty()) return Target::empty;
  ASSAY_ASSIGN(const std::set<std::string> listed, listed_files(target));
  for (const std::string& name : present)
    if (!listed.contains(name))
      return not_replaceable(target, fmt::format("it holds {}, which `assay data prepare` did not write", name));
  return Target::corpus;
}

Status empty_folder(const std::string& path) {
  std::error_code failure;
  fs::directory_iterator entries(path, failure);
  for (; !failure && entries != fs::directory_iterator(); entries.increment(failure))
    if (fs::remove_all(entries->path(), failure); failure) break;
  if (failure) return Error{ErrorCode::permission_denied, fmt::format("cannot empty {}: {}", path, failure.message())};
  return {};
}

}  // namespace

StagingFolder::StagingFolder(std::string target, std::string path, UniqueFd lock)
    : target_(std::move(target)), path_(std::move(path)), lock_(std::move(lock)) {}

StagingFolder::StagingFolder(StagingFolder&& other) noexcept
    : target_(std::move(other.target_)), path_(std::exchange(other.path_, {})), lock_(std::move(other.lock_)) {}

StagingFolder::~StagingFolder() {
  if (path_.empty()) return;
  std::error_code failure;
  fs::remove_all(path_, failure);
  if (failure) log::warn("cannot remove {}: {}", path_, failure.message());
}

Result<StagingFolder> StagingFolder::create(const std::string& target) {
  std::error_code failure;
  fs::path absolute = fs::weakly_canonical(fs::absolute(target, failure), failure);
  if (failure) return Error{ErrorCode::invalid_argument, fmt::format("cannot use {}: {}", target, failure.message())};
  if (!absolute.has_filename()) absolute = absolute.parent_path();  // "folder/" names the folder
  const std::string path = absolute.string() + ".preparing";
  ASSAY_ASSIGN(const Target found, inspect(absolute.string()));
  (void)found;
  ASSAY_TRY(make_folders(absolute.parent_path().string()));
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return system_error("create folder", path);
  UniqueFd lock(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!lock) return system_error("open folder", path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return system_error("lock", path);
    return Error{ErrorCode::failed_precondition,
                 fmt::format("another process is preparing {} right now (it holds {})", absolute.string(), path)};
  }
  StagingFolder staging(absolute.string(), path, std::move(lock));
  ASSAY_TRY(empty_folder(path));
  return staging;
}

Status StagingFolder::publish() {
  ASSAY_TRY(sync_folder(path_));
  ASSAY_ASSIGN(const Target found, inspect(target_));
  if (found == Target::corpus) {
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0)
      return Error{
          ErrorCode::failed_precondition,
          fmt::format("cannot swap {} for the new corpus in one step on this file system ({}): remove it and try "
                      "again, or choose another folder",
                      target_, std::strerror(errno))};
  } else if (::rename(path_.c_str(), target_.c_str()) != 0) {
    return system_error("rename the finished corpus to", target_);
  }
  if (found != Target::corpus) path_.clear();  // else it is the old corpus now, which the destructor removes
  return sync_folder(fs::path(target_).parent_path().string());
}

}  // namespace assay
