#include "engine/ops/cuda/muon.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/limits.h"
#include "engine/ops/cuda/muon_chunk.h"
#include "spec/backend_limits.h"

namespace assay::cuda {
namespace {

int64_t round_up(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit * unit;
}

MuonChunk empty_chunk(const Tensor& param) {
  MuonChunk c{};
  c.rows = static_cast<int>(param.dim(1));
  c.columns = static_cast<int>(param.dim(2));
  c.transposed = c.rows >= c.columns;
  c.s = std::min(c.rows, c.columns);
  c.l = std::max(c.rows, c.columns);
  c.s_padded = static_cast<int>(round_up(c.s, 128));
  c.l_padded = static_cast<int>(round_up(c.l, 64));
  return c;
}

// Gives the chunk its scratch memory for `matrices` of them.
void take_scratch(MuonChunk& c, int64_t matrices, Workspace& workspace) {
  const int64_t y = matrices * c.s_padded * c.l_padded, square = matrices * c.s_padded * c.s_padded;
  c.y = workspace.take<__nv_bfloat16>("muon", y);
  c.next = workspace.take<__nv_bfloat16>("muon", y);
  c.gram = workspace.take<__nv_bfloat16>("muon", square);
  c.poly = workspace.take<__nv_bfloat16>("muon", square);
  c.row_squares = workspace.take<double>("muon", matrices * c.rows);
  c.row_factor = workspace.take<float>("muon", matrices * c.rows);
  c.column_squares = workspace.take<double>("muon", matrices * c.l);
  c.column_factor = workspace.take<float>("muon", matrices * c.l);
  c.scale = workspace.take<float>("muon", matrices);
}
constexpr int64_t scratch_blocks = 9, block_bytes = 256;  // each of the above is rounded up to 256 bytes

int64_t bytes_per_matrix(const MuonChunk& c) {
  const int64_t s = c.s_padded, l = c.l_padded;
  return 2 * (2 * s * l + 2 * s * s) + 12 * (c.rows + c.l) + 4;
}

// Chunks of equal size: a small last one would leave the GPU idle.
int64_t matrices_per_chunk(const MuonChunk& c, const std::vector<MuonStack>& stacks) {
  int64_t total = 0;
  for (const MuonStack& s : stacks) total += s.param.dim(0);
  if (is_small(c)) return total;
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(limits::muon_workspace_bytes) / bytes_per_matrix(c));
  const int64_t chunks = (total + most - 1) / most;
  return (total + chunks - 1) / chunks;
}

void add_matrices(MuonChunk& c, const MuonStack& stack, int64_t first, int64_t count) {
  const int64_t at = first * c.rows * c.columns;
  c.param[c.stacks] = stack.param.as<float>() + at;
  c.grad[c.stacks] = stack.grad.as<float>() + at;
  c.momentum[c.stacks] = stack.momentum.as<float>() + at;
  c.second_moment[c.stacks] = stack.second_moment.as<float>() + first * c.l;
  c.matrices += static_cast<int>(count);
  c.end[c.stacks++] = c.matrices;
}

MuonFactors factors_of(const MuonArgs& a, const MuonChunk& c) {
  const MuonRates& r = a.rates;
  const double shape = std::sqrt(std::max(1.0, static_cast<double>(c.rows) / c.columns));
  return {.momentum_take = static_cast<float>(1 - r.momentum_beta),
          .momentum_beta = static_cast<float>(r.momentum_beta),
          .second_take = static_cast<float>(1 - r.beta2),
          .lr = static_cast<float>(r.lr * shape),
          .decay = static_cast<float>(r.lr * shape * r.weight_decay),
          .skip = a.skip};
}

void update(cudaStream_t stream, MuonChunk c, const MuonFactors& f) {
  if (is_small(c)) return muon_small(stream, c, f);
  muon_prepare(stream, c, f);
  for (const PolarExpress& p : polar_express) {
    muon_iteration(stream, c, p.a, p.b, p.c);
    std::swap(c.y, c.next);
  }
  muon_apply(stream, c, f);
}

void check_cuda(const MuonArgs& a) {
  cpu::check_muon(a);
  ASSAY_OP_CHECK("muon", cuda_limits.fp32 || !a.full_precision, fp32_refusal());
  for (const MuonStack& s : a.stacks) {
    bool aligned = true;
    for (const Tensor* t : {&s.param, &s.grad, &s.momentum})
      aligned = aligned && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
    ASSAY_OP_CHECK("muon", s.param.dtype == DType::f32 && s.param.dim(2) % 4 == 0 && aligned,
                   "param is " + s.param.describe() + (aligned ? "" : " at an odd address") +
                       "; on CUDA it is f32 and rows are whole 16-byte vectors, multiples of 4 columns");
  }
}

}  // namespace

size_t muon_workspace_bytes(const std::vector<MuonStack>& stacks) {
  if (stacks.empty()) return 0;
  const MuonChunk c = empty_chunk(stacks.front().param);
  if (is_small(c)) return 0;
  return static_cast<size_t>(matrices_per_chunk(c, stacks) * bytes_per_matrix(c) + scratch_blocks * block_bytes);
}

void muon(cudaStream_t stream, const MuonArgs& a, Workspace workspace) {
  check_cuda(a);
  if (a.stacks.empty()) return;
  MuonChunk blank = empty_chunk(a.stacks.front().param);
  const int64_t most = matrices_per_chunk(blank, a.stacks);
  if (!is_small(blank)) take_scratch(blank, most, workspace);
  const MuonFactors factors = factors_of(a, blank);
  MuonChunk chunk = blank;
  for (const MuonStack& stack : a.stacks) {
    const int64_t K = stack.param.dim(0);
    for (int64_t first = 0; first < K;) {
      const int64_t count = std::min(K - first, most - chunk.matrices);
      add_matrices(chunk, stack, first, count);
      first += count;
      if (chunk.matrices == most || chunk.stacks == max_muon_stacks) {
        update(stream, chunk, factors);
        chunk = blank;
      }
    }
  }
  if (chunk.matrices > 0) update(stream, chunk, factors);
}

}  // namespace assay::cuda
