#include "wire/step_columns.h"

#include <fmt/format.h>

#include <array>
#include <iterator>

namespace assay {
namespace {

Error wrong(std::string message) {
  return Error{ErrorCode::invalid_argument, "steps: " + std::move(message)};
}

Status check_column(const v1::StepColumn& column, const StepField& field, int64_t steps) {
  const int64_t values = field.is_integer() ? column.integers_size() : column.numbers_size();
  const int64_t others = field.is_integer() ? column.numbers_size() : column.integers_size();
  if (others > 0)
    return wrong(fmt::format("column \"{}\" holds {}", field.name, field.is_integer() ? "floats" : "integers"));
  if (values != steps) return wrong(fmt::format("column \"{}\" has {} values for {} steps", field.name, values, steps));
  return {};
}

void read_column(const v1::StepColumn& column, int64_t StepMetrics::*field, std::vector<StepMetrics>& steps) {
  for (size_t i = 0; i < steps.size(); ++i) steps[i].*field = column.integers(static_cast<int>(i));
}
void read_column(const v1::StepColumn& column, double StepMetrics::*field, std::vector<StepMetrics>& steps) {
  for (size_t i = 0; i < steps.size(); ++i) steps[i].*field = column.numbers(static_cast<int>(i));
}

void write_column(std::span<const StepMetrics> steps, int64_t StepMetrics::*field, v1::StepColumn& column) {
  column.mutable_integers()->Reserve(static_cast<int>(steps.size()));
  for (const StepMetrics& step : steps) column.add_integers(step.*field);
}
void write_column(std::span<const StepMetrics> steps, double StepMetrics::*field, v1::StepColumn& column) {
  column.mutable_numbers()->Reserve(static_cast<int>(steps.size()));
  for (const StepMetrics& step : steps) column.add_numbers(step.*field);
}

}  // namespace

void to_proto(std::span<const StepMetrics> steps, v1::StepColumns& out) {
  out.set_steps(static_cast<int64_t>(steps.size()));
  if (steps.empty()) return;
  for (const StepField& field : step_fields) {
    v1::StepColumn& column = *out.add_columns();
    column.set_name(std::string(field.name));
    std::visit([&](auto member) { write_column(steps, member, column); }, field.member);
  }
}

Result<ReceivedSteps> from_proto(const v1::StepColumns& in) {
  ReceivedSteps received;
  // Everything is checked before memory is taken for as many steps as the sender says there are.
  std::array<const v1::StepColumn*, std::size(step_fields)> columns{};
  for (const v1::StepColumn& column : in.columns()) {
    const StepField* field = find_step_field(column.name());
    if (field == nullptr) {
      received.unknown.push_back(column.name());
      continue;
    }
    const v1::StepColumn*& place = columns[static_cast<size_t>(field - step_fields)];
    if (place != nullptr) return wrong(fmt::format("column \"{}\" comes twice", field->name));
    place = &column;
    ASSAY_TRY(check_column(column, *field, in.steps()));
  }
  if (in.steps() == 0) return received;
  for (size_t i = 0; i < columns.size(); ++i)
    if (columns[i] == nullptr && step_fields[i].presence == Presence::always)
      return wrong(fmt::format("column \"{}\" is missing", step_fields[i].name));
  received.steps.resize(static_cast<size_t>(in.steps()));
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i] == nullptr) continue;
    std::visit([&](auto member) { read_column(*columns[i], member, received.steps); }, step_fields[i].member);
  }
  return received;
}

}  // namespace assay
