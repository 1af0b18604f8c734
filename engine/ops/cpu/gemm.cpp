#include "engine/ops/gemm.h"

#include "engine/ops/cpu/matmul.h"

namespace assay::cpu {
namespace {

// out = product (+ out) (+ residual), rounded once.
template <class S>
void store_product(const Acc<S>* product, const Tensor& out, const Tensor& residual, bool accumulate) {
  const int64_t n = out.numel();
  S* to = out.as<S>();
  const S* extra = residual.as<S>();
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; ++i) {
    Acc<S> sum = product[i];
    if (accumulate) sum += load(to[i]);
    if (extra != nullptr) sum += load(extra[i]);
    store(to[i], sum);
  }
}

void check_result(const char* op, const Tensor& out, const Tensor& residual, DType input, int64_t M, int64_t N) {
  const bool pair = (out.dtype == DType::f64) == (input == DType::f64);
  ASSAY_OP_CHECK(op, pair, std::string("out is ") + out.describe() + " with operands in " + to_string(input));
  check_tensor(op, "out", out, out.dtype, {M, N});
  if (residual) check_tensor(op, "residual", residual, out.dtype, {M, N});
}

template <class S>
void gemm_body(const GemmArgs& g, const MatmulShape& shape) {
  using A = Acc<S>;
  const A* a = widen<S>(g.a, Slot::operand_a);
  const A* b = widen<S>(g.b, Slot::operand_b);
  const bool residual_is_out = g.residual && g.residual.data == g.out.data;
  const bool add_once = g.accumulate != residual_is_out && (!g.residual || residual_is_out);
  const bool add_nothing = !g.accumulate && !g.residual;
  if (g.out.dtype == dtype_of<A> && (add_once || add_nothing)) {
    matmul(shape, A(1), a, b, add_once ? A(1) : A(0), g.out.as<A>());
    return;
  }
  A* product = scratch<A>(Slot::product, shape.M * shape.N);
  matmul(shape, A(1), a, b, A(0), product);
  dispatch("gemm", g.out.dtype, [&]<class O>(O) {
    if constexpr (std::is_same_v<Acc<O>, A>) store_product<O>(product, g.out, g.residual, g.accumulate);
  });
}

}  // namespace

void gemm(const GemmArgs& g) {
  ASSAY_OP_CHECK("gemm", g.a && g.b && g.a.rank == 2 && g.b.rank == 2 && g.a.dtype == g.b.dtype,
                 "operands " + g.a.describe() + " and " + g.b.describe() + " are not two matrices of one dtype");
  const int64_t M = g.a.dim(g.transpose_a ? 1 : 0), K = g.a.dim(g.transpose_a ? 0 : 1);
  const int64_t N = g.b.dim(g.transpose_b ? 0 : 1), K_b = g.b.dim(g.transpose_b ? 1 : 0);
  ASSAY_OP_CHECK("gemm", K == K_b,
                 "inner dimensions differ: " + g.a.describe() + (g.transpose_a ? "^T" : "") + " * " + g.b.describe() +
                     (g.transpose_b ? "^T" : ""));
  check_result("gemm", g.out, g.residual, g.a.dtype, M, N);
  const MatmulShape shape{M, N, K, g.transpose_a, g.transpose_b, g.a.dim(1), g.b.dim(1), N};
  dispatch("gemm", g.a.dtype, [&]<class S>(S) { gemm_body<S>(g, shape); });
}

void gemm_fp8(const GemmFp8Args& g) {
  ASSAY_OP_CHECK("gemm_fp8", g.a && g.b && g.a.codes.rank == 2 && g.b.codes.rank == 2,
                 "operands " + g.a.codes.describe() + " and " + g.b.codes.describe() + " are not two matrices");
  const int64_t M = g.a.codes.dim(0), N = g.b.codes.dim(0), K = g.a.codes.dim(1);
  check_quantized("gemm_fp8", "a", g.a, 1, M, K);
  check_quantized("gemm_fp8", "b", g.b, 1, N, K);
  check_result("gemm_fp8", g.out, g.residual, DType::f32, M, N);
  ASSAY_OP_CHECK("gemm_fp8", !g.promote || !g.residual, "no promotion with a residual");
  float* product = scratch<float>(Slot::product, M * N);
  fp8_product(g.a, 0, M, g.b, N, K, product);
  dispatch("gemm_fp8", g.out.dtype, [&]<class O>(O) {
    if constexpr (std::is_same_v<Acc<O>, float>) store_product<O>(product, g.out, g.residual, g.accumulate);
  });
}

}  // namespace assay::cpu
