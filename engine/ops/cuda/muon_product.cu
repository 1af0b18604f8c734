// The matrix products of Muon. 3 * 2 * S * S * L operations a matrix and iteration when S = L; of the two symmetric
// products only the blocks on and above the diagonal are computed.
#include "engine/ops/cuda/grouped_launch.cuh"
#include "engine/ops/cuda/muon_chunk.h"

namespace assay::cuda {
namespace {

// Tiles of 128 x 128: of 128 x 256 more would reach below the diagonal, and their staging of y leaves few stages.
template <Epilogue epilogue>
using SymmetricConfig = GroupedConfig<GemmType::bf16, epilogue, false, 128, true>;
using NextConfig = GroupedConfig<GemmType::bf16, Epilogue::residual, true, 128>;

}  // namespace

void muon_iteration(cudaStream_t stream, const MuonChunk& m, double a, double b, double c) {
  GroupedParams p{};
  p.groups = m.matrices;
  p.group_rows = m.s_padded;
  const int64_t rows = static_cast<int64_t>(m.matrices) * m.s_padded, s = m.s_padded, l = m.l_padded;

  launch_product<SymmetricConfig<Epilogue::none>>(
      stream, {.op = "muon", .a = m.y, .b = m.y, .out = m.gram, .rows = rows, .n = s, .k = l}, p);

  // The Gram matrix is its own transpose, which is what the kernel wants of b.
  p.alpha = static_cast<float>(c);
  p.beta = static_cast<float>(b);
  launch_product<SymmetricConfig<Epilogue::residual>>(
      stream, {.op = "muon", .a = m.gram, .b = m.gram, .out = m.poly, .hidden = m.gram, .rows = rows, .n = s, .k = s},
      p);

  p.alpha = 1;
  p.beta = static_cast<float>(a);
  launch_product<NextConfig>(
      stream, {.op = "muon", .a = m.poly, .b = m.y, .out = m.next, .hidden = m.y, .rows = rows, .n = l, .k = s}, p);
}

}  // namespace assay::cuda
