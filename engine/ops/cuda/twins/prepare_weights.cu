// The weights of a step, all in a few launches. Bytes per element: codes with a scale per matrix 4 in for its amax,
// then 4 in and 2 out; a copy in BF16 4 in and 2 out.
#include "engine/ops/prepare_weights.h"

#include <algorithm>

#include "engine/ops/cuda/batch.cuh"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/quantize_tile.cuh"

namespace assay::cuda {
namespace {

const char* const op = "prepare_weights";

struct Codes {  // of a stack, e4m3, one scale per matrix
  const float* x;
  uint8_t *out, *transposed;
  float *out_scales, *transposed_scales;
  int R, K, first_matrix, first_block;
};
struct Copy {
  const float* x;
  bf16* to;
  int64_t vectors;
  int first_block;
};

template <class Entry>
struct Table {
  static constexpr int capacity = 4032 / sizeof(Entry);  // with what goes beside it, a kernel parameter of 4 KiB
  Entry entries[capacity];
  int count = 0, blocks = 0;

  void add(Entry e, int64_t its_blocks) {
    e.first_block = blocks;
    entries[count++] = e;
    blocks += static_cast<int>(its_blocks);
  }
  __device__ __forceinline__ const Entry& of(int block) const {
    return entries[entry_of(block, count, [&](int i) { return entries[i].first_block; })];
  }
};

// --- codes: a block per tile ---------------------------------------------------------------------------------------

struct Work {
  Quantize<float> q;
  TilePlace at;
};
// amax: [matrices of the table], their bits
__device__ __forceinline__ Work work_of(const Table<Codes>& table, int* amax) {
  const Codes& c = table.of(blockIdx.x);
  const int rows = static_cast<int>(ceil_div(c.R, tile)), columns = static_cast<int>(ceil_div(c.K, tile));
  const int among = blockIdx.x - c.first_block, matrix = among / (rows * columns), in = among % (rows * columns);
  return {.q = {.x = c.x,
                .R = c.R,
                .K = c.K,
                .out = {c.out, c.out_scales},
                .transposed = {c.transposed, c.transposed_scales},
                .matrix_amax = amax + c.first_matrix},
          .at = {matrix, in / columns, in % columns, rows, columns}};
}

__global__ __launch_bounds__(256, 2) void weight_amax_kernel(const __grid_constant__ Table<Codes> table, int* amax) {
  const Work work = work_of(table, amax);
  const TileValues<float> x(work.q, work.at);
  int top = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) top = max(top, x.thread_row_amax(i));
  top = block_max<8>(top);
  if (threadIdx.x == 0) raise(&work.q.matrix_amax[work.at.matrix], top);
}

__global__ __launch_bounds__(256, 2) void weight_codes_kernel(const __grid_constant__ Table<Codes> table, int* amax) {
  const Work work = work_of(table, amax);
  quantize_tile<true>(work.q, work.at);
}

bool goes_by_matrix(const WeightForms& w) {
  const auto fits = [](const Quantized& q) {
    return q && q.mode == ScaleMode::tensorwise && q.codes.dtype == DType::fp8_e4m3;
  };
  return !w.copy && fits(w.out) && fits(w.transposed) && w.x && w.x.dtype == DType::f32 && w.x.rank >= 2;
}

// Collects weights and launches them when the table is full; the last ones wait for launch().
class CodesBatch {
 public:
  CodesBatch(cudaStream_t stream, const Workspace& workspace) : stream_(stream), workspace_(workspace) {}

  void add(const WeightForms& w) {
    const int64_t R = w.x.dim(w.x.rank - 2), K = w.x.dim(w.x.rank - 1), G = w.x.rank == 3 ? w.x.dim(0) : 1;
    check_vectors(op, "x", w.x, K);
    ASSAY_OP_CHECK(op, w.x.numel() > 0 && w.x.rank <= 3 && std::max(R, K) <= INT32_MAX,
                   "x is " + w.x.describe() + ", expected [R, K] or [G, R, K]");
    const Target out = target_of(op, "out", w.out, G, R, K),
                 transposed = target_of(op, "transposed", w.transposed, G, K, R);
    table_.add({.x = w.x.as<float>(),
                .out = out.codes,
                .transposed = transposed.codes,
                .out_scales = out.scales,
                .transposed_scales = transposed.scales,
                .R = static_cast<int>(R),
                .K = static_cast<int>(K),
                .first_matrix = matrices_},
               G * ceil_div(R, tile) * ceil_div(K, tile));
    matrices_ += static_cast<int>(G);
    if (table_.count == table_.capacity) launch();
  }
  void launch() {
    if (table_.count == 0) return;
    Workspace workspace = workspace_;  // the tables follow one another: each may use all of it
    int* amax = workspace.take<int>(op, matrices_);
    const std::string what = std::to_string(table_.count) + " weights to codes";
    ASSAY_CUDA_CHECK(op, cudaMemsetAsync(amax, 0, static_cast<size_t>(matrices_) * sizeof(int), stream_), what);
    weight_amax_kernel<<<table_.blocks, 256, 0, stream_>>>(table_, amax);
    ASSAY_CUDA_LAUNCHED(op, what);
    weight_codes_kernel<<<table_.blocks, 256, 0, stream_>>>(table_, amax);
    ASSAY_CUDA_LAUNCHED(op, what);
    table_ = {};
    matrices_ = 0;
  }

 private:
  cudaStream_t stream_;
  Workspace workspace_;
  Table<Codes> table_;
  int matrices_ = 0;
};

// --- copies --------------------------------------------------------------------------------------------------------

constexpr int copy_unroll = 4, copy_piece = 256 * copy_unroll;  // vectors of a block

__global__ __launch_bounds__(256) void weight_copy_kernel(const __grid_constant__ Table<Copy> table) {
  const Copy& c = table.of(blockIdx.x);
  const int64_t first = static_cast<int64_t>(blockIdx.x - c.first_block) * copy_piece + threadIdx.x;
  Packed<float> v[copy_unroll];
#pragma unroll
  for (int u = 0; u < copy_unroll; ++u) v[u] = load_or_zero(c.x + (first + u * 256) * vec, first + u * 256 < c.vectors);
#pragma unroll
  for (int u = 0; u < copy_unroll; ++u) {
    float x[vec];
    unpack(v[u], x);
    if (first + u * 256 < c.vectors) store(c.to + (first + u * 256) * vec, x);
  }
}

bool goes_by_vectors(const WeightForms& w) {
  const auto aligned = [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.data) % 16 == 0; };
  return w.copy && w.x && w.x.dtype == DType::f32 && w.copy.dtype == DType::bf16 && w.x.numel() == w.copy.numel() &&
         w.x.numel() > 0 && w.x.numel() % vec == 0 && aligned(w.x) && aligned(w.copy);
}

class CopyBatch {
 public:
  explicit CopyBatch(cudaStream_t stream) : stream_(stream) {}

  void add(const WeightForms& w) {
    const int64_t vectors = w.x.numel() / vec;
    table_.add({.x = w.x.as<float>(), .to = w.copy.as<bf16>(), .vectors = vectors}, ceil_div(vectors, copy_piece));
    if (table_.count == table_.capacity) launch();
  }
  void launch() {
    if (table_.count == 0) return;
    weight_copy_kernel<<<table_.blocks, 256, 0, stream_>>>(table_);
    ASSAY_CUDA_LAUNCHED(op, std::to_string(table_.count) + " copies");
    table_ = {};
  }

 private:
  cudaStream_t stream_;
  Table<Copy> table_;
};

}  // namespace

void prepare_weights(cudaStream_t stream, const PrepareWeightsArgs& a, Workspace workspace) {
  CodesBatch codes(stream, workspace);
  CopyBatch copies(stream);
  for (const WeightForms& w : a.weights) {
    if (goes_by_matrix(w)) {
      codes.add(w);
    } else if (goes_by_vectors(w)) {
      copies.add(w);
    } else if (w.copy) {
      cast(stream, {w.x, w.copy});
    } else {
      quantize(stream, {.x = w.x, .out = w.out, .transposed = w.transposed}, workspace);
    }
  }
  codes.launch();
  copies.launch();
}

}  // namespace assay::cuda
