// Aligned tables for a terminal or a pipe.
#pragma once

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
  // Lines without line ends, titles first. `width` 0 = unlimited; otherwise no line is wider.
  std::vector<std::string> lines(int width, bool colour) const;
  std::string text(int width, bool colour) const;  // lines joined, each ended by "\n"

 private:
  std::vector<int> widths(int limit) const;
  std::vector<Column> columns_;
  std::vector<std::vector<TableCell>> rows_;
};

}  // namespace assay
