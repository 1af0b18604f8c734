// Kernel lab: Muon at the matrices of d12 (12 layers of 8 + 1 experts, d = 768, h = 1024). The symmetric products are
// checked against the full ones and timed beside them; then the passes and whole steps are timed.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "engine/ops/cuda/grouped_launch.cuh"
#include "engine/ops/cuda/muon.h"
#include "engine/ops/cuda/muon_chunk.h"

using namespace assay;
using namespace assay::cuda;

namespace {

void ok(cudaError_t error) {
  ASSAY_CUDA_CHECK("muon_lab", error);
}

template <class T>
T* allocate(int64_t count) {
  void* p = nullptr;
  ok(cudaMalloc(&p, count * sizeof(T)));
  return static_cast<T*>(p);
}

template <class T>
__global__ void fill(T* p, int64_t count, uint32_t seed, float amplitude) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    uint32_t x = uint32_t(i) * 2654435761u + seed;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    p[i] = T((float(x ^ x >> 16) / 4294967296.0f * 2 - 1) * amplitude);
  }
}
template <class T>
T* filled(int64_t count, uint32_t seed, float amplitude) {
  T* p = allocate<T>(count);
  fill<<<1024, 256>>>(p, count, seed, amplitude);
  ok(cudaGetLastError());
  return p;
}
__global__ void count_differences(const uint16_t* a, const uint16_t* b, int64_t count,
                                  unsigned long long* differences) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x)
    if (a[i] != b[i]) atomicAdd(differences, 1ull);
}

// Milliseconds: the median of nine, after one to warm up.
float time_ms(const std::function<void()>& f) {
  cudaEvent_t start, end;
  ok(cudaEventCreate(&start));
  ok(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 10; ++i) {
    float ms = 0;
    ok(cudaEventRecord(start));
    f();
    ok(cudaEventRecord(end));
    ok(cudaEventSynchronize(end));
    ok(cudaEventElapsedTime(&ms, start, end));
    if (i > 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

MuonStack make_stack(int64_t K, int64_t R, int64_t C) {
  const int64_t n = K * R * C, m = K * std::max(R, C);
  return {{filled<float>(n, 1, 0.1f), DType::f32, {K, R, C}},
          {filled<float>(n, 2, 1e-3f), DType::f32, {K, R, C}},
          {filled<float>(n, 3, 1e-3f), DType::f32, {K, R, C}},
          {filled<float>(m, 4, 1e-3f), DType::f32, {K, std::max(R, C)}}};
}

template <Epilogue epilogue, int bn, bool symmetric>
using Config = GroupedConfig<GemmType::bf16, epilogue, false, bn, symmetric>;

// A = Y Y^T and B = b A + c A A for `matrices` of [s, l].
template <int bn, bool symmetric>
void squares(const char* name, int matrices, int s, int l, const __nv_bfloat16* y, __nv_bfloat16* gram,
             __nv_bfloat16* poly) {
  GroupedParams p{};
  p.groups = matrices, p.group_rows = s, p.alpha = 0.5f, p.beta = -2.8f;
  const int64_t rows = int64_t(matrices) * s;
  const double full = 2.0 * matrices * s * s;
  const float t1 = time_ms([&] {
    launch_product<Config<Epilogue::none, bn, symmetric>>(
        nullptr, {.op = "lab", .a = y, .b = y, .out = gram, .rows = rows, .n = s, .k = l}, p);
  });
  const float t2 = time_ms([&] {
    launch_product<Config<Epilogue::residual, bn, symmetric>>(
        nullptr, {.op = "lab", .a = gram, .b = gram, .out = poly, .hidden = gram, .rows = rows, .n = s, .k = s}, p);
  });
  std::printf("  %-22s Y Y^T %.3f ms (%.0f TFLOP/s of the full product)   bA + cAA %.3f ms (%.0f)\n", name, t1,
              full * l / t1 * 1e-9, t2, full * s / t2 * 1e-9);
}

void check_symmetric(int matrices, int s, int l) {
  const int64_t square = int64_t(matrices) * s * s;
  const auto* y = filled<__nv_bfloat16>(int64_t(matrices) * s * l, 5, 0.05f);
  __nv_bfloat16* out[6];
  for (auto& o : out) o = allocate<__nv_bfloat16>(square), ok(cudaMemset(o, 0xFF, square * 2));
  std::printf("%d matrices of %d x %d\n", matrices, s, l);
  squares<256, false>("all tiles", matrices, s, l, y, out[0], out[1]);
  squares<256, true>("half, 128 x 256", matrices, s, l, y, out[2], out[3]);
  squares<128, true>("half, 128 x 128", matrices, s, l, y, out[4], out[5]);
  auto* differences = allocate<unsigned long long>(1);
  ok(cudaMemset(differences, 0, 8));
  for (int i = 2; i < 6; ++i)
    count_differences<<<1024, 256>>>(reinterpret_cast<uint16_t*>(out[i % 2]), reinterpret_cast<uint16_t*>(out[i]),
                                     square, differences);
  unsigned long long count = 0;
  ok(cudaMemcpy(&count, differences, 8, cudaMemcpyDeviceToHost));
  std::printf("  elements that differ from all tiles: %llu of %lld\n", count, static_cast<long long>(4 * square));
  for (auto* o : out) ok(cudaFree(o));
  ok(cudaFree(const_cast<__nv_bfloat16*>(y)));
}

// Y' = a Y + B Y.
template <int bn>
void next(const char* name, int matrices, int s, int l) {
  const int64_t rows = int64_t(matrices) * s;
  const auto *y = filled<__nv_bfloat16>(rows * l, 5, 0.05f), *poly = filled<__nv_bfloat16>(rows * s, 6, 0.05f);
  auto* out = allocate<__nv_bfloat16>(rows * l);
  GroupedParams p{};
  p.groups = matrices, p.group_rows = s, p.alpha = 1, p.beta = 3.9f;
  const float ms = time_ms([&] {
    launch_product<GroupedConfig<GemmType::bf16, Epilogue::residual, true, bn>>(
        nullptr, {.op = "lab", .a = poly, .b = y, .out = out, .hidden = y, .rows = rows, .n = l, .k = s}, p);
  });
  std::printf("  %-22s aY + BY %.3f ms (%.0f TFLOP/s)\n", name, ms,
              2.0 * static_cast<double>(rows) * s * l / ms * 1e-9);
  for (const auto* q : {y, poly, static_cast<const __nv_bfloat16*>(out)}) ok(cudaFree(const_cast<__nv_bfloat16*>(q)));
}

struct List {
  const char* name;
  int64_t R, C;
  std::vector<int64_t> counts;
};

double tflop(const List& list) {
  const double s = std::min(list.R, list.C), l = std::max(list.R, list.C);
  double matrices = 0;
  for (int64_t K : list.counts) matrices += static_cast<double>(K);
  return matrices * 5 * (4 * s * s * l + 2 * s * s * s) * 1e-12;
}

float time_list(const List& list) {
  MuonArgs args{.rates = {.lr = 0.02, .momentum_beta = 0.95, .weight_decay = 0.1}};
  double elements = 0;
  for (int64_t K : list.counts) {
    args.stacks.push_back(make_stack(K, list.R, list.C));
    elements += static_cast<double>(K * list.R * list.C);
  }
  const size_t bytes = muon_workspace_bytes(args.stacks);
  void* memory = allocate<char>(static_cast<int64_t>(bytes));
  const float ms = time_ms([&] { muon(nullptr, args, Workspace(memory, bytes)); });
  const double work = tflop(list);
  std::printf("%-22s %.3f ms  %.3f TFLOP  %.0f TFLOP/s  (%zu stacks, %.0f M elements, workspace %.0f MiB)\n", list.name,
              ms, work, work / ms * 1e3, list.counts.size(), elements * 1e-6, static_cast<double>(bytes) / (1 << 20));
  for (const MuonStack& s : args.stacks)
    for (const Tensor& t : {s.param, s.grad, s.momentum, s.second_moment}) ok(cudaFree(t.data));
  ok(cudaFree(memory));
  return ms;
}

// The passes beside the products, for one stack of matrices R x C.
void time_passes(int K, int R, int C) {
  const MuonStack s = make_stack(K, R, C);
  MuonChunk c{};
  c.rows = R, c.columns = C, c.transposed = R >= C;
  c.s = c.s_padded = std::min(R, C), c.l = c.l_padded = std::max(R, C);
  c.matrices = K, c.stacks = 1, c.end[0] = K;
  c.param[0] = s.param.as<float>(), c.grad[0] = s.grad.as<float>();
  c.momentum[0] = s.momentum.as<float>(), c.second_moment[0] = s.second_moment.as<float>();
  const int64_t y = int64_t(K) * R * C, square = int64_t(K) * c.s * c.s;
  c.y = allocate<__nv_bfloat16>(y), c.next = allocate<__nv_bfloat16>(y);
  c.gram = allocate<__nv_bfloat16>(square), c.poly = allocate<__nv_bfloat16>(square);
  c.row_squares = allocate<double>(K * R), c.column_squares = allocate<double>(K * c.l);
  c.row_factor = allocate<float>(K * R), c.column_factor = allocate<float>(K * c.l), c.scale = allocate<float>(K);
  const MuonFactors f{0.05f, 0.95f, 0.1f, 0.02f, 0.002f};
  const float prepare = time_ms([&] { muon_prepare(nullptr, c, f); });
  const float iteration = time_ms([&] { muon_iteration(nullptr, c, 3.2, -2.3, 0.46); });
  const float apply = time_ms([&] { muon_apply(nullptr, c, f); });
  const double flop = double(K) * (4.0 * c.s * c.s * c.l + 2.0 * c.s * c.s * c.s);
  std::printf(
      "%d x %d x %d: prepare %.3f ms (%.0f GB/s), iteration %.3f ms (%.0f TFLOP/s), apply %.3f ms (%.0f GB/s)\n", K, R,
      C, prepare, y * 18 / prepare * 1e-6, iteration, flop / iteration * 1e-9, apply, y * 12 / apply * 1e-6);
  for (void* p : {(void*)c.y, (void*)c.next, (void*)c.gram, (void*)c.poly, (void*)c.row_squares, (void*)c.row_factor,
                  (void*)c.column_squares, (void*)c.column_factor, (void*)c.scale})
    ok(cudaFree(p));
}

}  // namespace

int main() {
  check_symmetric(108, 768, 1024);
  check_symmetric(48, 768, 768);
  check_symmetric(2, 640, 896);
  for (const int l : {1024, 768}) {
    next<256>("128 x 256", 108, 768, l);
    next<192>("128 x 192", 108, 768, l);
    next<128>("128 x 128", 108, 768, l);
  }
  time_passes(108, 1024, 768);
  time_passes(108, 768, 1024);
  time_passes(48, 768, 768);
  std::vector<int64_t> experts, attention;
  for (int layer = 0; layer < 12; ++layer) {
    experts.insert(experts.end(), {8, 1});
    attention.insert(attention.end(), {3, 1});
  }
  const List lists[] = {{"w1 1024 x 768", 1024, 768, experts},
                        {"w2 768 x 1024", 768, 1024, experts},
                        {"attention 768 x 768", 768, 768, attention},
                        {"router 8 x 768", 8, 768, std::vector<int64_t>(12, 1)},
                        {"gates 6 x 12", 6, 12, std::vector<int64_t>(6, 1)}};
  float ms = 0;
  double work = 0;
  for (const List& list : lists) ms += time_list(list), work += tflop(list);
  std::printf("d12 step: %.3f ms, %.2f TFLOP, %.0f TFLOP/s\n", ms, work, work / ms * 1e3);
  return 0;
}
