// FP8 products whose operands have a scale per row or per block. C is a GroupedConfig (grouped_kernel.cuh). The CPU
// twin (engine/ops/cpu/matmul.cpp) has the same order: acc * (scale of a * scale of b), per block of 128 along K summed
// in FP32. In such blocks the sums of the tensor cores, which keep about 14 bits, stay short (the scheme of the
// DeepSeek-V3 report, arXiv 2412.19437, section 3.3).
#pragma once

#include <utility>

#include "engine/ops/cuda/product.cuh"

namespace assay::cuda {

// What one FP8 scale covers. rowwise: a row of a, a row of b (a column of out). blockwise: 1x128 of a, 128x128 of b.
enum class Scales { tensorwise, rowwise, blockwise };

constexpr int scale_block = 128;  // columns of `out` and depth of K under one scale of b: a stage's depth

// Ordered among the wgmma around it: a load that is to arrive while products run must not sink to its use.
__device__ __forceinline__ float load_scale(const float* p) {
  float x;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(p));
  return x;
}

// Two neighbours, or zeros unless `exists`.
template <int offset>
__device__ __forceinline__ float2 load_scales(const float* p, bool exists) {
  float2 x;
  asm volatile(
      "{\n .reg .pred q;\n setp.ne.b32 q, %3, 0;\n mov.f32 %0, 0f00000000;\n mov.f32 %1, 0f00000000;\n"
      "@q ld.global.nc.v2.f32 {%0, %1}, [%2 + %4];\n}"
      : "=&f"(x.x), "=&f"(x.y)
      : "l"(p), "r"(static_cast<int>(exists)), "n"(offset * 4));
  return x;
}

// The two rows of `out` that a thread holds; beyond the last row of a, the last one's scale.
struct ThreadRows {
  int first, second;
  __device__ __forceinline__ ThreadRows(const GroupedParams& p, int row) {
    const int thread = threadIdx.x & 127, r = row + 16 * (thread / 32) + (thread & 31) / 4;
    first = min(r, p.a_rows - 1), second = min(r + 8, p.a_rows - 1);
  }
};

// rowwise: accumulators times the scales of their row and column; what lies beyond n is not stored. n is a multiple
// of 8. 128 columns at a time: the scales of 256 would take more registers than there are.
template <class C>
__device__ __forceinline__ void scale_rows_and_columns(float (&d)[C::bn / 2], const GroupedParams& p, const Tile& tile,
                                                       int row) {
  static_assert(C::bn == 128 || C::bn == 256);
  const ThreadRows rows(p, row);
  const float first = load_scale(p.a_scale + rows.first), second = load_scale(p.a_scale + rows.second);
  const float* columns = p.b_scale + tile.group * p.n + tile.column + 2 * (threadIdx.x & 3);
  const auto scale = [&]<int j>() {
    const float2 b = load_scales<8 * j>(columns, tile.column + 8 * j < p.n);
    d[4 * j] *= first * b.x;
    d[4 * j + 1] *= first * b.y;
    d[4 * j + 2] *= second * b.x;
    d[4 * j + 3] *= second * b.y;
  };
  const auto scale_part = [&]<int part, int... j>(std::integer_sequence<int, j...>) {
    if (tile.column + 128 * part < p.n) (scale.template operator()<16 * part + j>(), ...);
  };
  scale_part.template operator()<0>(std::make_integer_sequence<int, 16>{});
  if constexpr (C::bn == 256) scale_part.template operator()<1>(std::make_integer_sequence<int, 16>{});
}

// blockwise: where the scales of a tile begin. Rows and columns that do not exist get the scales of the last ones.
template <class C>
struct BlockScales {
  static constexpr int parts = C::bn / scale_block;  // of the tile's columns
  static_assert(C::scales != Scales::blockwise || C::bn % scale_block == 0);
  struct Stage {
    float first, second, b[parts];
  };
  int first, second, b, last;  // positions, of b: of the tile's first block and how much further its last one is

  __device__ __forceinline__ BlockScales(const GroupedParams& p, const Tile& tile, int row) {
    const ThreadRows rows(p, row);
    first = rows.first * p.k_steps, second = rows.second * p.k_steps;
    const int blocks = (p.n + scale_block - 1) / scale_block, block = tile.column / scale_block;
    b = (tile.group * blocks + block) * p.k_steps;
    last = min(parts, blocks - block) - 1;
  }
  __device__ __forceinline__ Stage load(const GroupedParams& p, int k) const {
    Stage s;
    s.first = load_scale(p.a_scale + first + k), s.second = load_scale(p.a_scale + second + k);
#pragma unroll
    for (int i = 0; i < parts; ++i) s.b[i] = load_scale(p.b_scale + b + min(i, last) * p.k_steps + k);
    return s;
  }
};

// The stages of shared memory as a consumer goes through them. The elected thread of a warpgroup says when it has read
// one.
template <class C>
struct ConsumedStages {
  const uint8_t *a, *b;  // a: this warpgroup's rows
  uint64_t *full, *empty;
  bool elected;
  int& stage;
  uint32_t& phase;

  __device__ __forceinline__ void wait() const { sm90::barrier_wait(&full[stage], phase); }
  __device__ __forceinline__ void release(int which) const {
    if (elected) sm90::barrier_arrive(&empty[which]);
  }
  __device__ __forceinline__ void advance() const {
    if (++stage == C::stages) stage = 0, phase ^= 1;
  }
  // The products of 128 columns of the stage, into fresh accumulators.
  __device__ __forceinline__ void multiply(float (&partial)[scale_block / 2], int part) const {
    sm90::wgmma_fence();
    multiply_stage<C>(partial, a + stage * C::a_bytes, b + stage * C::b_bytes + part * scale_block * stage_row_bytes,
                      true);
    sm90::wgmma_commit();
  }
};

// to += partial * scales, once partial's products are waited for.
__device__ __forceinline__ void promote(float* to, float (&partial)[scale_block / 2], float a_first, float a_second,
                                        float b) {
#pragma unroll
  for (float& x : partial) asm volatile("" : "+f"(x)::"memory");  // not read before the wait
  const float first = a_first * b, second = a_second * b;
#pragma unroll
  for (int j = 0; j < scale_block / 8; ++j) {
    to[4 * j] += partial[4 * j] * first;
    to[4 * j + 1] += partial[4 * j + 1] * first;
    to[4 * j + 2] += partial[4 * j + 2] * second;
    to[4 * j + 3] += partial[4 * j + 3] * second;
  }
}

__device__ __forceinline__ void leave_undefined(float (&x)[scale_block / 2]) {
#pragma unroll
  for (float& v : x) asm volatile("" : "=f"(v));
}

// A tile's products. d has 128 registers for 256 columns, which leaves room for 64 more: 128 columns are multiplied,
// waited for and added, then the others, while the other warpgroup multiplies. behind(k) runs behind the first products
// of stage k.
template <class C, class F>
__device__ __forceinline__ void multiply_in_parts(float (&d)[C::bn / 2], const GroupedParams& p,
                                                  const BlockScales<C>& scales, const ConsumedStages<C>& stages,
                                                  F&& behind) {
  float partial[scale_block / 2];
  leave_undefined(partial);
  for (int k = 0; k < p.k_steps; ++k) {
    const auto scale = scales.load(p, k);
    stages.wait();
#pragma unroll
    for (int part = 0; part < BlockScales<C>::parts; ++part) {
      stages.multiply(partial, part);
      if (part == 0) behind(k);
      sm90::wgmma_wait<0>();
      if (part == BlockScales<C>::parts - 1) stages.release(stages.stage);
      promote(d + part * scale_block / 2, partial, scale.first, scale.second, scale.b[part]);
    }
    stages.advance();
  }
}

// The same for 128 columns, where two sets of accumulators fit beside d: a stage is added while the next multiplies.
template <class C, class F>
__device__ __forceinline__ void multiply_ahead(float (&d)[scale_block / 2], const GroupedParams& p,
                                               const BlockScales<C>& scales, const ConsumedStages<C>& stages,
                                               F&& behind) {
  using Scale = typename BlockScales<C>::Stage;
  float even[scale_block / 2], odd[scale_block / 2];
  leave_undefined(even);
  leave_undefined(odd);
  Scale even_scale, odd_scale;
  int previous = stages.stage;
  const auto begin = [&](float(&now)[scale_block / 2], Scale& scale, int k) {
    scale = scales.load(p, k);
    stages.wait();
    stages.multiply(now, 0);
    behind(k);
    stages.advance();
  };
  const auto add = [&](float(&partial)[scale_block / 2], const Scale& scale) {
    stages.release(previous);
    if (++previous == C::stages) previous = 0;
    promote(d, partial, scale.first, scale.second, scale.b[0]);
  };
  begin(even, even_scale, 0);
  int k = 1;
  for (; k + 1 < p.k_steps; k += 2) {
    begin(odd, odd_scale, k);
    sm90::wgmma_wait<1>();
    add(even, even_scale);
    begin(even, even_scale, k + 1);
    sm90::wgmma_wait<1>();
    add(odd, odd_scale);
  }
  if (k < p.k_steps) {
    begin(odd, odd_scale, k);
    sm90::wgmma_wait<1>();
    add(even, even_scale);
    sm90::wgmma_wait<0>();
    add(odd, odd_scale);
  } else {
    sm90::wgmma_wait<0>();
    add(even, even_scale);
  }
}

}  // namespace assay::cuda
