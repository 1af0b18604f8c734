#include "tests/support/docs_block.h"

#include <cstdlib>

#include "base/file.h"
#include "tests/support/paths.h"

namespace assay {
namespace {

constexpr size_t docs_bytes = 1 << 20;

std::string row(const auto& cells) {
  std::string line = "|";
  for (const auto& cell : cells) line.append(" ").append(cell).append(" |");
  return line + "\n";
}

}  // namespace

std::string docs_block_problem(const std::string& file, const std::string& name, const std::string& expected) {
  const std::string path = source_dir() + "/" + file;
  const auto text = read_file(path, docs_bytes);
  if (!text.ok()) return text.error().message;
  const std::string first = "<!-- " + name + ": made by ./run docs -->\n", last = "<!-- end of " + name + " -->\n";
  const size_t begin = text->find(first);
  const size_t end = text->find(last);
  if (begin == std::string::npos || end == std::string::npos || end < begin)
    return file + " has no block \"" + name + "\"; put these lines where it belongs:\n" + first + last;
  const size_t inside = begin + first.size();
  if (text->substr(inside, end - inside) == expected) return {};
  if (std::getenv("ASSAY_WRITE_DOCS") == nullptr)
    return file + ": the block \"" + name + "\" is not what the code says; ./run docs writes it anew:\n" + expected;
  const Status written = write_file_atomically(path, text->substr(0, inside) + expected + text->substr(end), 0644);
  return written.ok() ? std::string() : written.error().message;
}

std::string docs_table(std::span<const std::string_view> titles, std::span<const std::vector<std::string>> rows) {
  std::string text = row(titles) + row(std::vector<std::string>(titles.size(), "---"));
  for (const std::vector<std::string>& cells : rows) text += row(cells);
  return text;
}

}  // namespace assay
