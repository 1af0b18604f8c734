#include "spec/step_text.h"

#include <fmt/format.h>

#include <iterator>

#include "base/csv.h"

namespace assay {
namespace {

void append(std::string& out, int64_t value) {
  fmt::format_to(std::back_inserter(out), "{}", value);
}
void append(std::string& out, double value) {
  out += csv_number(value);
}

}  // namespace

std::string steps_csv_header() {
  std::string header = "run,attempt";
  for (const StepField& field : step_fields) (header += ',') += field.name;
  return header + "\n";
}

void append_steps_csv(std::string& out, std::string_view run, int64_t attempt, const StepMetrics& metrics) {
  out += csv_field(run);
  out += ',';
  append(out, attempt);
  for (const StepField& field : step_fields) {
    out += ',';
    if (field.is_recorded_in(metrics)) field.visit(metrics, [&](auto value) { append(out, value); });
  }
  out += '\n';
}

}  // namespace assay
