// The spelling of every enum of the run config, in enum order: one table prints, parses and lists the legal values.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "spec/run_config.h"

namespace assay {

inline constexpr std::array<std::string_view, 4> precision_names = {"fp32", "bf16", "fp8_noexperts", "fp8_experts"};
inline constexpr std::array<std::string_view, 3> execution_names = {"eager", "static", "dynamic"};
inline constexpr std::array<std::string_view, 3> backend_names = {"auto", "cpu", "cuda"};
inline constexpr std::array<std::string_view, 3> fp8_recipe_names = {"tensorwise", "rowwise", "blockwise"};
inline constexpr std::array<std::string_view, 3> fp8_wgrad_names = {"auto", "bf16", "fp8"};
inline constexpr std::array<std::string_view, 2> fp8_format_names = {"e4m3", "e5m2"};
inline constexpr std::array<std::string_view, 7> fault_kind_names = {
    "none", "crash", "exit_code", "stall", "plan_error", "out_of_memory", "non_finite"};

// names_of(E{}) is the table of E.
constexpr std::span<const std::string_view> names_of(Precision) {
  return precision_names;
}
constexpr std::span<const std::string_view> names_of(Execution) {
  return execution_names;
}
constexpr std::span<const std::string_view> names_of(Backend) {
  return backend_names;
}
constexpr std::span<const std::string_view> names_of(Fp8Recipe) {
  return fp8_recipe_names;
}
constexpr std::span<const std::string_view> names_of(Fp8Wgrad) {
  return fp8_wgrad_names;
}
constexpr std::span<const std::string_view> names_of(Fp8Format) {
  return fp8_format_names;
}
constexpr std::span<const std::string_view> names_of(FaultKind) {
  return fault_kind_names;
}

template <class E>
constexpr std::string_view name_of(E value) {
  return names_of(value)[static_cast<size_t>(value)];
}

template <class E>
constexpr std::optional<E> parse_enum(std::string_view text) {
  const auto names = names_of(E{});
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == text) return static_cast<E>(i);
  return std::nullopt;
}

}  // namespace assay
