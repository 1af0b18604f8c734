#include "cli/error_line.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/format.h"
#include "spec/spec_errors.h"

namespace assay {
namespace {

// "file:line:column: what", the form in which editors find a place; only such a line does without the program's name.
bool has_place(std::string_view line) {
  const std::string_view place = line.substr(0, line.find(": "));
  const auto ends_with_number = [](std::string_view& text) {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || colon + 1 == text.size()) return false;
    const bool number = std::all_of(text.begin() + static_cast<ptrdiff_t>(colon) + 1, text.end(),
                                    [](char c) { return c >= '0' && c <= '9'; });
    text = text.substr(0, colon);
    return number;
  };
  std::string_view rest = place;
  return place.size() < line.size() && ends_with_number(rest) && ends_with_number(rest) && !rest.empty();
}

}  // namespace

std::string remark_lines(const std::string& text) {
  std::string lines;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = text.substr(start, end - start);
    lines += (has_place(line) ? "" : "assay: ") + printable(line) + "\n";
    start = end + 1;
  }
  return lines;
}

std::string error_lines(bool json, ExitCode code, const std::string& message) {
  if (!json) return remark_lines(message);
  using Json = nlohmann::ordered_json;
  const Json error = {
      {"error", {{"exit_code", static_cast<int>(code)}, {"kind", kind_of(code)}, {"message", message}}}};
  return error.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<std::string> nearest_verb(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  const auto near = nearest(word, std::vector<std::string_view>(names.begin(), names.end()));
  return near ? std::optional(std::string(*near)) : std::nullopt;
}

}  // namespace assay
