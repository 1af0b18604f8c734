// The metrics of one optimizer step: what the trainer writes, the store keeps and the report prints.
//
// Each field is described once, in ASSAY_STEP_FIELDS. From it come the struct, the journal's record
// (worker/attempt/journal), the column of metrics.db (db/step_rows), the column on the wire (wire/step_columns), CSV
// and JSON (spec/step_text, cli/output), and the table in docs/cli.md. A new field is a line at the end of the list,
// the migration that adds its column (db/migrations.cpp), and where it is computed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string_view>
#include <variant>

// X(type, name, presence, unit, since, meaning)
//   type      int64_t or double. What is counted exactly is an int64_t, and never negative.
//   presence  always: every step has it. sometimes: may be not_recorded, which readers see as empty and never as 0.
//   since     the version of this list that brought it; fields of a later version come after all earlier ones, and are
//             `sometimes`, as older steps lack them.
#define ASSAY_STEP_FIELDS(X)                                                                                         \
  X(int64_t, step, always, "", 1, "number of the step, from 0")                                                      \
  X(double, loss, always, "nats", 1, "mean cross entropy over the tokens of the step")                               \
  X(double, dt_ms, always, "ms", 1, "wall time of the step")                                                         \
  X(double, tok_per_sec, always, "tokens/s", 1, "`total_batch_tokens` / `dt_ms`")                                    \
  X(double, mfu, always, "%", 1, "model FLOPs utilisation, of 989.5 TFLOP/s a device (dense BF16 of an H100)")       \
  X(double, lr_scale, always, "", 1, "what the schedule multiplies the learning rates with, 0 to 1")                 \
  X(double, grad_norm, always, "", 1, "L2 norm of all gradients, before the optimizer")                              \
  X(double, expert_load_min, always, "", 1, "least load of an expert in any layer, as a fraction of the fair share") \
  X(double, expert_load_max, always, "", 1, "greatest load of an expert in any layer, the same")                     \
  X(double, peak_mem_mib, always, "MiB", 1, "most memory of the device in use so far")                               \
  X(double, val_loss, sometimes, "nats", 1, "validation loss after the step, where one was due")                     \
  X(int64_t, unix_ms, always, "ms", 1, "when the step ended, since 1970 UTC")                                        \
  X(int64_t, tokens, sometimes, "tokens", 2, "trained by the run so far, over all devices and attempts")             \
  X(double, flops, sometimes, "FLOP", 2, "spent by the run so far: `tokens` × the FLOPs of a token as `mfu` counts")

namespace assay {

enum class Presence { always, sometimes };

// The value of a field that `sometimes` has none.
template <class T>
inline constexpr T not_recorded = -1;
template <>
inline constexpr double not_recorded<double> = std::numeric_limits<double>::quiet_NaN();

inline bool is_recorded(Presence presence, int64_t value) {
  return presence == Presence::always || value != not_recorded<int64_t>;
}
inline bool is_recorded(Presence presence, double value) {
  return presence == Presence::always || !std::isnan(value);
}

struct StepMetrics {
#define ASSAY_STEP_MEMBER_(type, name, presence, unit, since, meaning) \
  type name = Presence::presence == Presence::always ? type{} : not_recorded<type>;
  ASSAY_STEP_FIELDS(ASSAY_STEP_MEMBER_)
#undef ASSAY_STEP_MEMBER_
};

struct StepField {
  std::string_view name;
  std::variant<int64_t StepMetrics::*, double StepMetrics::*> member;
  Presence presence;
  std::string_view unit;  // empty: a plain number
  int since;
  std::string_view meaning;  // Markdown, one line

  constexpr bool is_integer() const { return member.index() == 0; }
  // visit(value) with the field's value in `metrics`.
  template <class Metrics, class Visit>
  decltype(auto) visit(Metrics& metrics, Visit&& visit) const {
    return std::visit([&](auto field) -> decltype(auto) { return visit(metrics.*field); }, member);
  }
  bool is_recorded_in(const StepMetrics& metrics) const {
    return visit(metrics, [this](auto value) { return is_recorded(presence, value); });
  }
};

inline constexpr StepField step_fields[] = {
#define ASSAY_STEP_FIELD_(type, name, presence, unit, since, meaning) \
  {#name, &StepMetrics::name, Presence::presence, unit, since, meaning},
    ASSAY_STEP_FIELDS(ASSAY_STEP_FIELD_)
#undef ASSAY_STEP_FIELD_
};

// each(field, value) for every field in order. As a loop over step_fields with visit(), but each value has its type
// when this is compiled: for what is done with every step of every run.
template <class Metrics, class Each>
void for_each_field(Metrics& metrics, Each&& each) {
  const StepField* field = step_fields;
#define ASSAY_STEP_EACH_(type, name, presence, unit, since, meaning) each(*field++, metrics.name);
  ASSAY_STEP_FIELDS(ASSAY_STEP_EACH_)
#undef ASSAY_STEP_EACH_
}

static_assert(std::is_sorted(std::begin(step_fields), std::end(step_fields),
                             [](const StepField& a, const StepField& b) { return a.since < b.since; }));
static_assert(std::all_of(std::begin(step_fields), std::end(step_fields),
                          [](const StepField& f) { return f.since == 1 || f.presence == Presence::sometimes; }));

constexpr const StepField* find_step_field(std::string_view name) {
  const auto* found = std::find_if(std::begin(step_fields), std::end(step_fields),
                                   [&](const StepField& field) { return field.name == name; });
  return found == std::end(step_fields) ? nullptr : found;
}

}  // namespace assay
