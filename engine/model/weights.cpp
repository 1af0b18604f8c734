#include "engine/model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/model/random.h"
#include "engine/ops/error.h"

namespace assay {
namespace {

constexpr int64_t piece = 1 << 20;  // parameters are filled in pieces of this many values: little host memory

// Values as `dtype` (f32 or f64) in a host buffer.
std::vector<char> encode(const std::vector<double>& values, DType dtype) {
  std::vector<char> bytes(values.size() * size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f64) {
      std::memcpy(bytes.data() + i * sizeof(double), &values[i], sizeof(double));
    } else {
      const auto value = static_cast<float>(values[i]);
      std::memcpy(bytes.data() + i * sizeof(float), &value, sizeof(float));
    }
  }
  return bytes;
}

Weight bind(const ParameterSpec& p, const ModelShape& s, const Arena& arena) {
  const DType master = s.master_bytes == 8 ? DType::f64 : DType::f32;
  Weight w;
  w.spec = p;
  w.master = arena.take("param." + p.name, master, {p.groups, p.rows, p.cols});
  w.grad = arena.take("grad." + p.name, master, {p.groups, p.rows, p.cols});
  w.moment1 = arena.take("moment1." + p.name, master, {p.groups, p.rows, p.cols});
  w.moment2 = is_muon(p.kind) ? arena.take("moment2." + p.name, master, {p.groups, std::max(p.rows, p.cols)})
                              : arena.take("moment2." + p.name, master, {p.groups, p.rows, p.cols});
  if (!is_gemm_weight(p.kind)) return w;
  const bool stack = p.routed;
  const int64_t rows = stack ? p.rows : p.groups * p.rows;
  w.product_grad = stack ? w.grad : w.grad.view({rows, p.cols});
  if (weight_is_fp8(s, p)) {
    const ScaleMode mode = scale_mode(s.recipe, Fp8Operand::weight);
    const std::string a = "compute8." + p.name, b = "compute8t." + p.name;
    w.w8 = stack ? arena.take_fp8(a, DType::fp8_e4m3, mode, {p.groups, rows, p.cols})
                 : arena.take_fp8(a, DType::fp8_e4m3, mode, {rows, p.cols});
    w.w8t = stack ? arena.take_fp8(b, DType::fp8_e4m3, mode, {p.groups, p.cols, rows})
                  : arena.take_fp8(b, DType::fp8_e4m3, mode, {p.cols, rows});
  } else if (s.activation_bytes == s.master_bytes) {
    w.compute = stack ? w.master : w.master.view({rows, p.cols});
  } else {
    const std::string name = "compute." + p.name;
    w.compute =
        stack ? arena.take(name, DType::bf16, {p.groups, rows, p.cols}) : arena.take(name, DType::bf16, {rows, p.cols});
  }
  return w;
}

}  // namespace

ScaleMode scale_mode(Fp8Recipe recipe, Fp8Operand operand) {
  switch (recipe) {
    case Fp8Recipe::tensorwise:
      return ScaleMode::tensorwise;
    case Fp8Recipe::rowwise:
      return ScaleMode::rowwise;
    case Fp8Recipe::blockwise:
      break;
  }
  return operand == Fp8Operand::weight ? ScaleMode::block_128x128 : ScaleMode::block_1x128;
}

std::vector<double> initial_values(const ParameterSpec& p, const ModelShape& s, int64_t seed, int64_t first,
                                   int64_t count) {
  std::vector<double> v(static_cast<size_t>(count), 0.0);
  const RandomStream random(seed, p.name);
  const auto normal = [&](double std) {
    random.fill_normal(first, count, v.data());
    for (double& x : v) x *= std;
  };
  const auto uniform = [&](double low, double high) {
    random.fill_uniform(first, count, v.data());
    for (double& x : v) x = low + (high - low) * x;
  };
  // From `top` at layer 0 down by `fall` at the last.
  const auto ramp = [&](double top, double fall) {
    for (int64_t i = 0; i < count; ++i)
      v[static_cast<size_t>(i)] =
          top - fall * static_cast<double>(first + i) / static_cast<double>(std::max<int64_t>(s.layers - 1, 1));
  };
  const double bound = std::sqrt(3.0 / static_cast<double>(s.d));  // uniform in +-bound has std 1/sqrt(d)
  switch (p.kind) {
    case ParameterKind::token_embedding:
      normal(0.8);
      break;
    case ParameterKind::lm_head:
      normal(0.001);
      break;
    case ParameterKind::router:
      normal(0.02);
      break;
    case ParameterKind::value_embedding:
    case ParameterKind::qkv:
      uniform(-bound, bound);
      break;
    case ParameterKind::expert_up:
      uniform(-0.4 * bound, 0.4 * bound);
      break;
    case ParameterKind::ve_gate:
      uniform(0.0, 0.02);
      break;
    case ParameterKind::attention_output:
    case ParameterKind::expert_down:
      break;
    case ParameterKind::resid_lambda:
      ramp(1.15, 0.10);
      break;
    case ParameterKind::x0_lambda:
      ramp(0.20, 0.15);
      break;
  }
  return v;
}

Weights::Weights(const RunConfig& config, const ModelShape& shape, const Arena& arena) : shape_(shape) {
  for (const ParameterSpec& p : list_parameters(config)) all_.push_back(bind(p, shape, arena));
}

void Weights::initialise(int64_t seed, Ops& ops) {
  for (Weight& w : all_) {
    const size_t element = size_of(w.master.dtype);
    for (int64_t first = 0; first < w.spec.numel(); first += piece) {
      const int64_t count = std::min(piece, w.spec.numel() - first);
      const std::vector<char> bytes = encode(initial_values(w.spec, shape_, seed, first, count), w.master.dtype);
      ops.copy_to_device(w.master.as<char>() + static_cast<size_t>(first) * element, bytes.data(), bytes.size());
    }
    ops.fill_zero({w.moment1});
    ops.fill_zero({w.moment2});
  }
}

void Weights::prepare(Ops& ops) {
  PrepareWeightsArgs args;
  for (Weight& w : all_) {
    if (w.w8) {
      const Tensor x = w.w8.codes.rank == 3 ? w.master : w.master.view({w.w8.codes.dim(0), w.w8.codes.dim(1)});
      args.weights.push_back({.x = x, .out = w.w8, .transposed = w.w8t, .copy = {}});
    } else if (w.compute && w.compute.data != w.master.data) {
      const Tensor flat = w.compute.view({w.compute.numel()});
      args.weights.push_back({.x = w.master.view({w.master.numel()}), .out = {}, .transposed = {}, .copy = flat});
    }
  }
  if (!args.weights.empty()) ops.prepare_weights(args);
}

void Weights::zero_grads(Ops& ops) {
  for (Weight& w : all_)
    if (!w.product_grad) ops.fill_zero({w.grad});
}

const Weight* Weights::find(const std::string& name) const {
  const auto found = std::find_if(all_.begin(), all_.end(), [&](const Weight& w) { return w.spec.name == name; });
  return found == all_.end() ? nullptr : &*found;
}

const Weight& Weights::at(const std::string& name) const {
  const Weight* found = find(name);
  if (found == nullptr) throw EngineError(FailureReason::internal, "no parameter \"" + name + "\"", "weights", name);
  return *found;
}

}  // namespace assay
