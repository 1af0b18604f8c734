#include "cli/watch_view.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/text.h"
#include "cli/format.h"
#include "cli/run_rows.h"
#include "cli/table.h"

namespace assay {
namespace {

constexpr int frame_lines = 6;  // title, overall bar, blank, table titles; blank, footer

// Names matter more than bars: a narrow terminal shows the steps alone.
int bar_columns(int width) {
  return width >= 100 ? 16 : width >= 88 ? 8 : 0;
}

std::string spread(const std::string& left, const std::string& right, int width) {
  const std::string cut = shorten(left, std::max(0, width - display_width(right) - 2));
  const int space = std::max(1, width - display_width(cut) - display_width(right));
  return shorten(cut + std::string(static_cast<size_t>(space), ' ') + right, width);
}

std::string overall_line(const v1::ListRunsResponse& list, const WatchView& view) {
  int64_t ended = 0;
  for (const auto& [state, count] : list.by_state()) ended += has_ended(state) ? count : 0;
  double done = static_cast<double>(ended);
  for (const v1::Run& run : list.runs()) done += is_live(run.state()) ? progress(run) : 0.0;
  const double fraction = list.total() == 0 ? 0 : done / static_cast<double>(list.total());
  const std::string text =
      fmt::format(" {:3.0f}%  {} of {} ended", std::floor(fraction * 100), ended, plural(list.total(), "run"));
  const int bar = std::min(40, view.width - display_width(text) - 2);
  if (bar < 4) return shorten(text.substr(1), view.width);
  return "[" + paint(progress_bar(fraction, bar), Colour::green, view.colour) + "]" + text;
}

Table table_of(const v1::ListRunsResponse& list, const WatchView& view) {
  ExperimentLabels experiments;
  for (const v1::Run& run : list.runs()) experiments.see(run.experiment(), run.tag());
  const bool with_tag = experiments.several();
  const int bar = bar_columns(view.width);
  std::vector<Column> columns;
  if (with_tag) columns.push_back({"tag", Align::left, true, true});
  columns.insert(columns.end(), {{"run", Align::left, true, true}, {"state"}});
  if (bar > 0) columns.push_back({"progress"});
  columns.insert(columns.end(), {{"step", Align::right},
                                 {"loss", Align::right},
                                 {"tok/sec", Align::right},
                                 {"left", Align::right},
                                 {"remark", Align::left, true}});
  Table table(columns);
  for (const v1::Run& run : list.runs()) {
    const Colour colour = state_colour(run.state());
    const bool observed = run.has_latest() && run.latest().steps_observed() > 0;
    const int64_t left = time_left_ms(run);
    const double fraction = progress(run);
    std::vector<TableCell> row;
    if (with_tag) row.emplace_back(experiments.label(run.experiment(), run.tag()));
    row.insert(row.end(), {run.name(), TableCell(run.state(), colour)});
    if (bar > 0)
      row.emplace_back(fmt::format("{}{:4.0f}%", progress_bar(fraction, bar), std::floor(fraction * 100)), colour);
    row.insert(row.end(),
               {fmt::format("{}/{}", observed ? run.latest().last_step() + 1 : 0, run.total_steps()), loss_cell(run),
                rate_cell(run), left < 0 ? "-" : format_duration(left), remark(run, view.now)});
    table.add(std::move(row));
  }
  return table;
}

}  // namespace

int last_first_row(int runs, int height) {
  return std::max(0, runs - std::max(1, height - frame_lines));
}

std::vector<std::string> watch_lines(const v1::ListRunsResponse& list, const WatchView& view) {
  const int rows = std::max(1, view.height - frame_lines);
  std::vector<std::string> lines;
  lines.push_back(spread("assay  " + printable(view.home) + (list.queue_held() ? "  [queue held]" : ""),
                         format_local_time(view.now), view.width));
  lines.push_back(view.problem.empty() ? overall_line(list, view)
                                       : paint(shorten(printable(view.problem), view.width), Colour::red, view.colour));
  lines.emplace_back();
  for (std::string& line :
       table_of(list, view)
           .lines(view.width, view.colour, static_cast<size_t>(view.first_row), static_cast<size_t>(rows)))
    lines.push_back(std::move(line));
  lines.emplace_back();
  const int64_t below = list.total() - view.first_row - rows;
  std::string keys = below > 0 || view.first_row > 0 ? fmt::format("{} above, {} below; arrows scroll, q leaves",
                                                                   view.first_row, std::max<int64_t>(0, below))
                                                     : std::string("q leaves");
  // Beyond the end of the list there are runs that ended long ago, or wait for long.
  if (list.total() > list.runs_size() && view.first_row >= last_first_row(list.runs_size(), view.height))
    keys = fmt::format("{} more: `assay ls`; q leaves", list.total() - list.runs_size());
  const std::string counts = counts_line(list, false);
  const int room = view.width - display_width(keys) - 2;
  if (display_width(counts) <= room)  // colours only where nothing is cut, so that no escape sequence is
    lines.push_back(counts_line(list, view.colour) +
                    std::string(static_cast<size_t>(room - display_width(counts) + 2), ' ') +
                    paint(keys, Colour::dim, view.colour));
  else
    lines.push_back(spread(counts, keys, view.width));
  if (static_cast<int>(lines.size()) > view.height) lines.resize(static_cast<size_t>(std::max(0, view.height)));
  return lines;
}

}  // namespace assay
