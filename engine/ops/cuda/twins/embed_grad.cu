// Gradients of the embedding tables: sort the rows by token, then sum the rows of each token.
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rows.cuh"
#include "engine/ops/cuda/token_sum.cuh"

namespace assay::cuda {
namespace {

template <class S>
struct PlainRow {
  const S* dy;
  int d;
  __device__ __forceinline__ Packed<S> load(int32_t row, int column) const {
    return cuda::load(dy + static_cast<int64_t>(row) * d + column);
  }
  __device__ __forceinline__ void get(const Packed<S>& raw, float (&x)[vec]) const { unpack(raw, x); }
};

// rstd * (dx - x * mean(x * dx))
template <class S, class G>
struct NormedRow {
  const S* x;
  const G* dx;
  const float *rstd, *mean;
  int d;
  struct Raw {
    Packed<S> n;
    Packed<G> g;
    float rstd, mean;
  };
  __device__ __forceinline__ Raw load(int32_t row, int column) const {
    const int64_t at = static_cast<int64_t>(row) * d + column;
    return {cuda::load(x + at), cuda::load(dx + at), rstd[row], mean[row]};
  }
  __device__ __forceinline__ void get(const Raw& raw, float (&out)[vec]) const {
#pragma unroll
    for (int i = 0; i < vec; ++i) out[i] = raw.rstd * (raw.g.get(i) - raw.n.get(i) * raw.mean);
  }
};

template <class L, class S, class G>
__global__ __launch_bounds__(128) void row_mean_kernel(const S* x, const G* dx, float* mean, int64_t N, int d) {
  const int64_t row = L::row();
  float dot = 0;
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    const bool valid = row < N && L::column(c) < d;
    const Packed<S> n = load_or_zero(x + row * d + L::column(c), valid);
    const Packed<G> g = load_or_zero(dx + row * d + L::column(c), valid);
#pragma unroll
    for (int i = 0; i < vec; ++i) dot += n.get(i) * g.get(i);
  }
  dot = L::sum(dot);
  if (row < N && L::lane() == 0) mean[row] = dot / static_cast<float>(d);
}

template <class S, class G>
void embed_norm_grad_body(cudaStream_t stream, const EmbedNormGradArgs& a, int64_t N, int64_t d, Workspace workspace,
                          bool by_width) {
  const char* op = "embed_norm_grad";
  float* mean = workspace.take<float>(op, N);
  dispatch_row(op, a.x, d, by_width, [&]<class L>(L) {
    row_mean_kernel<L, S, G>
        <<<ceil_div(N, L::rows_per_block), 128, 0, stream>>>(a.x.as<S>(), a.dx.as<G>(), mean, N, static_cast<int>(d));
  });
  ASSAY_CUDA_LAUNCHED(op, a.x.describe());
  const SortedTokens sorted = sort_tokens(op, stream, a.tokens.as<int32_t>(), N, a.table_grad.numel() / d, workspace);
  launch_token_sum(op, stream, sorted, N, d, a.table_grad,
                   NormedRow<S, G>{a.x.as<S>(), a.dx.as<G>(), a.rstd.as<float>(), mean, static_cast<int>(d)},
                   workspace);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- launchers

void embed_norm_grad(cudaStream_t stream, const EmbedNormGradArgs& a, Workspace workspace, const Tiling& tiling) {
  const char* op = "embed_norm_grad";
  ASSAY_OP_CHECK(op, a.x && a.x.rank >= 2 && a.x.numel() > 0, "x is " + a.x.describe() + ", expected [N, d]");
  const int64_t d = a.x.dim(a.x.rank - 1), N = a.x.numel() / d;
  check_vectors(op, "x", a.x, d);
  check_tensor(op, "dx", a.dx, a.dx.dtype == DType::f32 ? DType::f32 : a.x.dtype, {N, d});
  check_vectors(op, "dx", a.dx, d);
  check_tensor(op, "rstd", a.rstd, DType::f32, {N});
  check_tensor(op, "tokens", a.tokens, DType::i32, {N});
  check_tensor(op, "table_grad", a.table_grad, DType::f32, {a.table_grad.numel() / d, d});
  dispatch(op, a.x.dtype, [&]<class S>(S) {
    if (a.dx.dtype == DType::f32) {
      embed_norm_grad_body<S, float>(stream, a, N, d, workspace, tiling.by_width);
    } else {
      embed_norm_grad_body<S, S>(stream, a, N, d, workspace, tiling.by_width);
    }
  });
}

void embed_grad(cudaStream_t stream, const EmbedGradArgs& a, Workspace workspace) {
  const char* op = "embed_grad";
  ASSAY_OP_CHECK(op, a.dy && a.dy.rank >= 2 && a.dy.numel() > 0, "dy is " + a.dy.describe() + ", expected [N, d]");
  const int64_t d = a.dy.dim(a.dy.rank - 1), N = a.dy.numel() / d;
  check_vectors(op, "dy", a.dy, d);
  check_tensor(op, "tokens", a.tokens, DType::i32, {N});
  check_tensor(op, "table_grad", a.table_grad, DType::f32, {a.table_grad.numel() / d, d});
  const SortedTokens sorted = sort_tokens(op, stream, a.tokens.as<int32_t>(), N, a.table_grad.numel() / d, workspace);
  dispatch(op, a.dy.dtype, [&]<class S>(S) {
    launch_token_sum(op, stream, sorted, N, d, a.table_grad, PlainRow<S>{a.dy.as<S>(), static_cast<int>(d)}, workspace);
  });
}

}  // namespace assay::cuda
