// Aligned tables for a terminal or a pipe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace assay {

enum class Align { left, right };
enum class Colour { none, dim, bold, red, green, yellow, blue, cyan };

// `text` in that colour if `enabled` (Console::colour).
std::string paint(const std::string& text, Colour colour, bool enabled);
// The colour a run state is shown in everywhere.
Colour state_colour(const std::string& state);

struct Column {
  std::string title;
  Align align = Align::left;
  bool shrinks = false;  // may be cut with "…" where the table is wider than the terminal
  // Cells are names that have to be told apart: they shrink after all other columns, the first such column (the tag of
  // a run) ahead of the next; first by what all of them begin with ("moe_", which then stands in the title), then where
  // the fewest become alike.
  bool names = false;
};

struct TableCell {
  TableCell(std::string text, Colour colour = Colour::none) : text(std::move(text)), colour(colour) {}  // NOLINT
  TableCell(const char* text) : text(text) {}                                                           // NOLINT
  std::string text;  // made printable by the table
  Colour colour = Colour::none;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns);
  void add(std::vector<TableCell> row);  // one cell per column
  size_t rows() const { return rows_.size(); }
  int natural_width() const;  // of its lines where nothing is cut
  // Lines without line ends, titles first. `width` 0 = unlimited; otherwise no line is wider. Rows from `first` on,
  // `count` of them: columns are as wide as all rows need, so that nothing moves while a window scrolls.
  std::vector<std::string> lines(int width, bool colour, size_t first = 0, size_t count = SIZE_MAX) const;
  std::string text(int width, bool colour) const;  // lines joined, each ended by "\n"

 private:
  struct Layout {
    std::vector<int> widths;
    std::vector<std::string> prefixes;  // of every cell of a column, left out; empty = none
  };
  std::vector<int> natural_widths(const std::vector<std::string>& prefixes) const;
  void shrink(std::vector<int>& widths, bool names, int least, int limit) const;
  std::string common_prefix(size_t column) const;
  Layout layout(int limit) const;
  std::vector<Column> columns_;
  std::vector<std::vector<TableCell>> rows_;
};

}  // namespace assay
