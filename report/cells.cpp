#include "report/cells.h"

#include <algorithm>

#include "report/summary.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

bool same_cell(const ReportRun& a, const ReportRun& b) {
  return !a.run.cell_key.empty() && a.run.cell_key == b.run.cell_key;
}

void measure(ReportCell& cell) {
  std::vector<double> tok_per_sec;
  std::vector<double> loss;
  std::vector<double> peak;
  for (const ReportRun* run : cell.runs) {
    const ReportAttempt* attempt = measured_attempt(*run);
    if (run->run.state != RunState::completed || !attempt || attempt->summary.steps_observed == 0) continue;
    cell.done.push_back(run);
    tok_per_sec.push_back(attempt->summary.tail50_tok_per_sec);
    loss.push_back(attempt->summary.last_loss);
    if (const double mib = peak_mem_mib(*attempt); mib > 0) peak.push_back(mib);
  }
  cell.tok_per_sec = estimate(tok_per_sec);
  cell.loss = estimate(loss);
  cell.peak_mem_mib = estimate(peak);
}

// The config with everything that `axis` may change set to one value, as text.
std::string without(Axis axis, RunConfig config) {
  const RunConfig defaults;
  config.train.seed = defaults.train.seed;
  config.fault = defaults.fault;
  switch (axis) {
    case Axis::precision:
      config.precision = defaults.precision;
      config.fp8 = defaults.fp8;
      break;
    case Axis::execution:
      config.execution = defaults.execution;
      config.coalesce_tiling = defaults.coalesce_tiling;
      config.capacity_factor = defaults.capacity_factor;
      config.recompile_limit = defaults.recompile_limit;
      break;
    case Axis::steps:
      config.train.steps = defaults.train.steps;
      break;
  }
  return to_toml(config);
}

}  // namespace

std::vector<ReportCell> report_cells(const ReportInput& input) {
  std::vector<ReportCell> cells;
  for (const ReportRun& run : input.runs) {
    const auto cell =
        std::find_if(cells.begin(), cells.end(), [&](const ReportCell& c) { return same_cell(*c.first, run); });
    if (cell == cells.end())
      cells.push_back({.name = run.run.name, .first = &run, .runs = {&run}});
    else
      cell->runs.push_back(&run);
  }
  for (ReportCell& cell : cells) {
    for (const ReportRun* run : cell.runs)
      if (run->run.repeat < cell.first->run.repeat) cell.first = run;
    cell.name = cell.first->run.name;
    measure(cell);
  }
  return cells;
}

const ReportCell* find_cell(const std::vector<ReportCell>& cells, std::string_view run_name) {
  for (const ReportCell& cell : cells)
    for (const ReportRun* run : cell.runs)
      if (run->run.name == run_name) return &cell;
  return nullptr;
}

bool differ_only_in(Axis axis, const ReportCell& a, const ReportCell& b) {
  return without(axis, a.first->config) == without(axis, b.first->config);
}

}  // namespace assay
