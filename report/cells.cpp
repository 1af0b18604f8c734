#include "report/cells.h"

#include <algorithm>

#include "report/summary.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

bool same_cell(const ReportRun& a, const ReportRun& b) {
  return !a.run.cell_key.empty() && a.run.cell_key == b.run.cell_key;
}

void measure(ReportCell& cell, LossKind kind) {
  std::vector<double> tok_per_sec;
  std::vector<double> loss;
  std::vector<double> peak;
  cell.loss_kind = kind;
  for (const ReportRun* run : cell.done) {
    const ReportAttempt* attempt = measured_attempt(*run);
    if (attempt->summary.steps_observed > 0) tok_per_sec.push_back(attempt->summary.tail50_tok_per_sec);
    if (const double mib = peak_mem_mib(*attempt); mib > 0) peak.push_back(mib);
    const RunLoss of_run = run_loss(*run, kind);
    if (kind == LossKind::training && of_run.steps == 0) continue;
    cell.loss_steps = loss.empty() ? of_run.steps : std::min(cell.loss_steps, of_run.steps);
    loss.push_back(of_run.value);
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
  return canonical_text(config);
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
    for (const ReportRun* run : cell.runs)
      if (run->run.state == RunState::completed && current_attempt(*run)) cell.done.push_back(run);
  }
  const LossKind kind = choose_loss(completed_runs(cells)).kind;
  for (ReportCell& cell : cells) measure(cell, kind);
  return cells;
}

std::vector<const ReportRun*> completed_runs(const std::vector<ReportCell>& cells) {
  std::vector<const ReportRun*> runs;
  for (const ReportCell& cell : cells) runs.insert(runs.end(), cell.done.begin(), cell.done.end());
  return runs;
}

bool losses_comparable(const ReportCell& a, const ReportCell& b) {
  return a.first->run.total_steps == b.first->run.total_steps && a.loss_steps == b.loss_steps &&
         a.first->config.data.path == b.first->config.data.path;
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
