#include "engine/plan/backend_check.h"

#include <algorithm>
#include <cmath>

namespace assay {
namespace {

// What the CUDA ops take of their workspace at most, in MiB: those bound by memory (engine/ops/cuda/launch.h), for each
// token the carried sums of the embedding gradients, the gates and theirs, sorting and routing; or the parts of the
// gates' gradients, a float for each row and 128 columns. And what does not grow with them.
double scratch_mib(const ModelShape& s) {
  constexpr double fixed_mib = 64, mib = 1 << 20;
  const double per_token = static_cast<double>(s.d) / 8 + static_cast<double>(10 * s.heads + 16 * s.top_k + 64);
  const double parts = static_cast<double>(s.routed_rows) * static_cast<double>((s.h + 127) / 128) * 4;
  return fixed_mib + std::max(static_cast<double>(s.tokens) * per_token, parts) / mib;
}

Error refuse(std::string message) {
  return Error{ErrorCode::invalid_argument, std::move(message)};
}

}  // namespace

RunSizes run_sizes(const RunConfig& config, const ModelShape& s) {
  RunSizes sizes{};
  const auto set = [&](RunSize size, int64_t value) { sizes[static_cast<size_t>(size)] = value; };
  set(RunSize::devices, config.devices);
  set(RunSize::experts, s.experts);
  set(RunSize::top_k, s.top_k);
  set(RunSize::head_dim, s.head_dim);
  set(RunSize::width, s.d);
  set(RunSize::expert_width, s.h);
  set(RunSize::vocab, s.vocab);
  set(RunSize::tokens, s.tokens);
  set(RunSize::picks, s.tokens * s.top_k);
  set(RunSize::routed_rows, s.routed_rows);
  set(RunSize::scratch_mib, static_cast<int64_t>(std::ceil(scratch_mib(s))));
  return sizes;
}

Status check_backend(const RunConfig& config, const ModelShape& shape, Backend backend) {
  if (auto problem = precision_problem(backend, config.precision)) return refuse(*std::move(problem));
  if (auto problem = size_problem(limits_of(backend, config.precision), run_sizes(config, shape)))
    return refuse(*std::move(problem));
  return {};
}

}  // namespace assay
