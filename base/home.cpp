#include "base/home.h"

#include <fmt/core.h>
#include <sys/un.h>

#include <cstdlib>
#include <filesystem>

#include "base/utf8.h"

namespace assay {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Result<std::string> absolute(const std::string& path) {
  std::error_code ec;
  std::filesystem::path p = std::filesystem::absolute(path, ec).lexically_normal();
  if (ec)
    return Error{
        ErrorCode::failed_precondition,
        fmt::format("cannot find the folder that {} is relative to: {}; give an absolute path", path, ec.message())};
  // It goes into messages, whose text is UTF-8.
  if (!is_utf8(p.native()))
    return Error{ErrorCode::invalid_argument,
                 fmt::format("the folder {} has a name that is not UTF-8; choose another", in_quotes(p.native()))};
  if (!p.has_filename() && p.has_relative_path()) p = p.parent_path();  // "a/b/" and "a/b" are one folder
  return p.string();
}

}  // namespace

Result<std::string> home_folder(const std::string& chosen) {
  if (!chosen.empty()) return absolute(chosen);
  if (std::string home = variable("ASSAY_HOME"); !home.empty()) return absolute(home);
  if (std::string state = variable("XDG_STATE_HOME"); !state.empty() && state.front() == '/')
    return absolute(state + "/assay");
  if (std::string user = variable("HOME"); !user.empty()) return absolute(user + "/.local/state/assay");
  return Error{ErrorCode::invalid_argument,
               "no state folder: neither ASSAY_HOME, XDG_STATE_HOME nor HOME is set; give one with --home FOLDER"};
}

Result<std::string> socket_path(const std::string& home) {
  std::string path = home + "/assayd.sock";
  constexpr size_t longest = sizeof(sockaddr_un::sun_path) - 1;
  if (path.size() > longest)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{}: a socket path has at most {} bytes, this one has {}; choose a shorter ASSAY_HOME",
                             path, longest, path.size())};
  return path;
}

std::string path_in_home(const std::string& home, const std::string& path) {
  if (path.empty() || path.front() != '/') return path;
  const auto inside = [](const std::filesystem::path& file, const std::filesystem::path& folder) {
    const std::filesystem::path relative = file.lexically_relative(folder);
    return relative.empty() || *relative.begin() == ".." ? std::string() : relative.string();
  };
  if (std::string relative = inside(path, home); !relative.empty()) return relative;
  // The same folder may go by two names (a symbolic link).
  std::error_code ec;
  const auto folder = std::filesystem::weakly_canonical(home, ec);
  if (ec) return path;
  const auto file = std::filesystem::weakly_canonical(path, ec);
  if (ec) return path;
  const std::string relative = inside(file, folder);
  return relative.empty() ? path : relative;
}

std::string path_from_home(const std::string& home, const std::string& stored) {
  return stored.empty() || stored.front() == '/' ? stored : home + "/" + stored;
}

std::string daemon_log_path(const std::string& home) {
  return home + "/assayd.log";
}

std::string worker_log_path(const std::string& home) {
  return home + "/worker.log";
}

}  // namespace assay
