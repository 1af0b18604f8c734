#include "cli/table.h"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "cli/format.h"
#include "spec/words.h"

namespace assay {
namespace {

constexpr int gap = 2;        // spaces between columns
constexpr int narrowest = 8;  // a column that shrinks keeps this much, or its title
constexpr int readable = 16;  // a column that is no name keeps this much before names lose anything

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

int total_width(const std::vector<int>& widths) {
  return std::accumulate(widths.begin(), widths.end(), 0) + gap * (static_cast<int>(widths.size()) - 1);
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
  const auto known = find_word<RunState>(state);
  if (!known || *known == RunState::queued) return Colour::none;
  if (*known == RunState::running) return Colour::cyan;
  if (*known == RunState::completed) return Colour::green;
  if (*known == RunState::failed) return Colour::red;
  return is_terminal(*known) ? Colour::dim : Colour::yellow;
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::add(std::vector<TableCell> row) {
  assert(row.size() == columns_.size());
  for (TableCell& cell : row) cell.text = printable(cell.text);
  rows_.push_back(std::move(row));
}

std::vector<int> Table::natural_widths(const std::vector<std::string>& prefixes) const {
  std::vector<int> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    int width = display_width(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, display_width(row[c].text) - display_width(prefixes[c]));
    widths.push_back(width);
  }
  return widths;
}

int Table::natural_width() const {
  return total_width(natural_widths(std::vector<std::string>(columns_.size())));
}

// Takes from the widest column that may shrink, one column of text at a time, until the table fits; of columns of names
// from the first: what it says (the tag of a run) is the same for many rows.
void Table::shrink(std::vector<int>& widths, bool names, int least, int limit) const {
  for (int excess = total_width(widths) - limit; excess > 0; --excess) {
    int widest = -1;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const bool shrinks = columns_[c].shrinks && columns_[c].names == names &&
                           widths[c] > std::max(least, display_width(columns_[c].title));
      if (shrinks && (widest < 0 || (!names && widths[c] > widths[static_cast<size_t>(widest)])))
        widest = static_cast<int>(c);
    }
    if (widest < 0) return;
    --widths[static_cast<size_t>(widest)];
  }
}

// Whole words alone: "moe_" of "moe_fp8" and "moe_fp16", and of "moe_lr0.02" and "moe_lr0.05", whose numbers stay
// whole. Something of every cell is left.
std::string Table::common_prefix(size_t column) const {
  if (rows_.size() < 2) return {};
  std::string_view prefix = rows_.front()[column].text;
  for (const auto& row : rows_) {
    const std::string& text = row[column].text;
    const auto differ = std::mismatch(prefix.begin(), prefix.end(), text.begin(), text.end()).first;
    prefix = prefix.substr(0, static_cast<size_t>(differ - prefix.begin()));
    if (prefix.size() == text.size() && !prefix.empty()) prefix.remove_suffix(1);
  }
  const size_t word_end = prefix.find_last_of("_/");
  return word_end == std::string_view::npos ? std::string() : std::string(prefix.substr(0, word_end + 1));
}

Table::Layout Table::layout(int limit) const {
  Layout layout{{}, std::vector<std::string>(columns_.size())};
  layout.widths = natural_widths(layout.prefixes);
  if (limit <= 0) return layout;
  shrink(layout.widths, false, readable, limit);
  if (total_width(layout.widths) <= limit) return layout;
  for (size_t c = 0; c < columns_.size(); ++c)
    if (columns_[c].names) layout.prefixes[c] = common_prefix(c);
  layout.widths = natural_widths(layout.prefixes);
  shrink(layout.widths, false, readable, limit);
  shrink(layout.widths, false, narrowest, limit);
  shrink(layout.widths, true, narrowest, limit);
  return layout;
}

std::vector<std::string> Table::lines(int width, bool colour, size_t first, size_t count) const {
  const Layout layout = this->layout(width);
  const size_t begin = std::min(first, rows_.size());
  const size_t end = begin + std::min(count, rows_.size() - begin);
  std::vector<std::vector<std::string>> cells;  // by column
  for (size_t c = 0; c < columns_.size(); ++c) {
    cells.emplace_back();
    for (const auto& row : rows_) cells[c].push_back(row[c].text.substr(layout.prefixes[c].size()));
    if (columns_[c].names) cells[c] = shorten_apart(std::move(cells[c]), layout.widths[c]);
  }
  std::vector<std::string> lines;
  const auto add_line = [&](auto cell_at) {
    std::string line;
    int left = width > 0 ? width : 1 << 20;  // columns still free: what does not fit is left out, never wrapped
    for (size_t c = 0; c < columns_.size() && left > 0; ++c) {
      const TableCell cell = cell_at(c);
      const int fits = std::min(layout.widths[c], left);
      line += pad(shorten(cell.text, fits), fits, columns_[c].align, cell.colour, colour);
      left -= fits + gap;
      if (c + 1 < columns_.size() && left > 0) line += std::string(gap, ' ');
    }
    trim_right(line);
    lines.push_back(std::move(line));
  };
  add_line([&](size_t c) {
    const std::string& prefix = layout.prefixes[c];
    if (prefix.empty()) return TableCell(columns_[c].title, Colour::bold);
    return TableCell(shorten_end(columns_[c].title + " " + prefix + "…", layout.widths[c]), Colour::bold);
  });
  for (size_t r = begin; r < end; ++r) add_line([&](size_t c) { return TableCell(cells[c][r], rows_[r][c].colour); });
  return lines;
}

std::string Table::text(int width, bool colour) const {
  std::string text;
  for (const std::string& line : lines(width, colour)) text += line + "\n";
  return text;
}

}  // namespace assay
