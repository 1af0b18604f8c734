#include "cli/spec_file.h"

#include <fmt/core.h>

#include <filesystem>
#include <iostream>
#include <iterator>

#include "base/file.h"
#include "base/limits.h"
#include "cli/format.h"

namespace assay {
namespace {

Result<std::string> read_text(const std::string& path) {
  if (path != "-") {
    auto text = read_file(path, limits::spec_bytes);
    // Unreadable is a wrong argument of the user's, whatever the system calls it; a missing file stays not_found.
    if (!text.ok() && text.error().code == ErrorCode::internal)
      return Error{ErrorCode::invalid_argument, text.error().message};
    return text;
  }
  std::string text(limits::spec_bytes + 1, '\0');
  std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::cin.gcount()));
  if (text.size() > limits::spec_bytes)
    return Error{ErrorCode::resource_exhausted,
                 fmt::format("standard input: a spec has at most {} bytes", limits::spec_bytes)};
  return text;
}

}  // namespace

Result<SpecFile> read_spec_file(const std::string& path) {
  SpecFile file;
  file.path = path == "-" ? "<stdin>" : path;
  ASSAY_ASSIGN(file.text, read_text(path));
  std::error_code failed;
  file.base_folder = std::filesystem::current_path(failed).string();
  if (failed)
    return Error{ErrorCode::invalid_argument, "the working folder is not there any more: " + failed.message()};
  SpecResult parsed = parse_experiment(file.text, file.path, file.base_folder);
  if (!parsed.ok()) {
    std::string message;
    for (const SpecError& error : parsed.errors) message += (message.empty() ? "" : "\n") + error.to_string();
    return Error{ErrorCode::invalid_argument, message};
  }
  file.spec = std::move(parsed.spec);
  return file;
}

Json to_json(const google::protobuf::RepeatedPtrField<std::string>& texts) {
  Json array = Json::array();
  for (const std::string& text : texts) array.push_back(text);
  return array;
}

void print_warnings(Context& context, const google::protobuf::RepeatedPtrField<std::string>& warnings) {
  for (const std::string& warning : warnings) context.console.err << "assay: warning: " << printable(warning) << "\n";
}

}  // namespace assay
