#include "cli/table.h"

#include <algorithm>
#include <cassert>

#include "cli/format.h"

namespace assay {
namespace {

constexpr int gap = 2;        // spaces between columns
constexpr int narrowest = 8;  // a column that shrinks keeps this much, or its title

const char* code(Colour colour) {
  switch (colour) {
    case Colour::none:
      return "";
    case Colour::dim:
      return "\x1b[2m";
    case Colour::bold:
      return "\x1b[1m";
    case Colour::red:
      return "\x1b[31m";
    case Colour::green:
      return "\x1b[32m";
    case Colour::yellow:
      return "\x1b[33m";
    case Colour::blue:
      return "\x1b[34m";
    case Colour::cyan:
      return "\x1b[36m";
  }
  return "";
}

std::string pad(const std::string& text, int width, Align align, Colour colour, bool enabled) {
  const std::string space(static_cast<size_t>(std::max(0, width - display_width(text))), ' ');
  const std::string shown = paint(text, colour, enabled);
  return align == Align::right ? space + shown : shown + space;
}

void trim_right(std::string& line) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
}

}  // namespace

std::string paint(const std::string& text, Colour colour, bool enabled) {
  if (!enabled || colour == Colour::none || text.empty()) return text;
  return code(colour) + text + "\x1b[0m";
}

Colour state_colour(const std::string& state) {
  if (state == "running") return Colour::cyan;
  if (state == "completed") return Colour::green;
  if (state == "failed") return Colour::red;
  if (state == "held" || state == "retry_wait" || state == "paused") return Colour::yellow;
  if (state == "cancelled") return Colour::dim;
  return Colour::none;
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::add(std::vector<TableCell> row) {
  assert(row.size() == columns_.size());
  for (TableCell& cell : row) cell.text = printable(cell.text);
  rows_.push_back(std::move(row));
}

std::vector<int> Table::widths(int limit) const {
  std::vector<int> widths;
  int total = -gap;
  for (size_t c = 0; c < columns_.size(); ++c) {
    int width = display_width(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, display_width(row[c].text));
    widths.push_back(width);
    total += width + gap;
  }
  // Take from the widest column that may shrink, one column of text at a time, until the table fits.
  while (limit > 0 && total > limit) {
    int widest = -1;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const int least = std::max(narrowest, display_width(columns_[c].title));
      if (columns_[c].shrinks && widths[c] > least && (widest < 0 || widths[c] > widths[static_cast<size_t>(widest)]))
        widest = static_cast<int>(c);
    }
    if (widest < 0) break;
    --widths[static_cast<size_t>(widest)];
    --total;
  }
  return widths;
}

std::vector<std::string> Table::lines(int width, bool colour) const {
  const std::vector<int> columns = widths(width);
  std::vector<std::string> lines;
  const auto add_line = [&](auto cell_at) {
    std::string line;
    int left = width > 0 ? width : 1 << 20;  // columns still free: what does not fit is left out, never wrapped
    for (size_t c = 0; c < columns_.size() && left > 0; ++c) {
      const TableCell cell = cell_at(c);
      const int fits = std::min(columns[c], left);
      line += pad(shorten(cell.text, fits), fits, columns_[c].align, cell.colour, colour);
      left -= fits + gap;
      if (c + 1 < columns_.size() && left > 0) line += std::string(gap, ' ');
    }
    trim_right(line);
    lines.push_back(std::move(line));
  };
  add_line([&](size_t c) { return TableCell(columns_[c].title, Colour::bold); });
  for (const auto& row : rows_) add_line([&](size_t c) { return row[c]; });
  return lines;
}

std::string Table::text(int width, bool colour) const {
  std::string text;
  for (const std::string& line : lines(width, colour)) text += line + "\n";
  return text;
}

}  // namespace assay
