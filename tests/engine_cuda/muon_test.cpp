// Muon on CUDA against its CPU twin. Momentum is the same arithmetic, so bit for bit. The rest goes through 15 products
// in BF16, whose rounding errors the iterations amplify: summed in another order, they give another result at about the
// twin's own distance from full precision. So the update must be as near to full precision as the twin's and, where a
// matrix is large enough for errors to average out, point the same way.
#include "engine/ops/cuda/muon.h"
#include "base/limits.h"
#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

// A parameter and its state.
struct Stack {
  Array param, grad, momentum, second;

  Stack(Random& random, int64_t K, int64_t R, int64_t C)
      : param(random_array(random, DType::f32, {K, R, C}, 0.1)),
        grad(random_array(random, DType::f32, {K, R, C}, 1e-3)),
        momentum(random_array(random, DType::f32, {K, R, C}, 1e-3)),
        second(DType::f32, {K, std::max(R, C)}) {
    for (int64_t i = 0; i < second.size(); ++i)
      second.set(i, random.uniform(0.5, 2) / static_cast<double>(std::max(R, C)));
  }
  MuonStack tensors() const { return {param, grad, momentum, second}; }
};

// The same on the device.
struct StackMirror {
  Mirror param, grad, momentum, second;
  explicit StackMirror(const Stack& s) : param(s.param), grad(s.grad), momentum(s.momentum), second(s.second) {}
  MuonStack tensors() const { return {param, grad, momentum, second}; }
  void read_back(Stack& s) const { s.param = param.back(), s.momentum = momentum.back(), s.second = second.back(); }
};

// As many bytes as these stacks are said to need, filled with NaNs.
class ExactWorkspace {
 public:
  explicit ExactWorkspace(const std::vector<MuonStack>& stacks) : bytes_(cuda::muon_workspace_bytes(stacks)) {
    cuda_ok(cudaMalloc(&memory_, bytes_), "cudaMalloc");
    cuda_ok(cudaMemset(memory_, 0xFF, bytes_), "cudaMemset");
  }
  ~ExactWorkspace() { cudaFree(memory_); }
  ExactWorkspace(const ExactWorkspace&) = delete;
  ExactWorkspace& operator=(const ExactWorkspace&) = delete;
  operator cuda::Workspace() const { return {memory_, bytes_}; }

 private:
  size_t bytes_;
  void* memory_ = nullptr;
};

constexpr MuonRates rates{.lr = 0.02, .momentum_beta = 0.9, .beta2 = 0.85, .weight_decay = 0.3};

std::vector<Stack> make_stacks(uint64_t salt, const std::vector<int64_t>& counts, int64_t R, int64_t C) {
  Random random(salt);
  std::vector<Stack> stacks;
  for (int64_t K : counts) stacks.emplace_back(random, K, R, C);
  return stacks;
}

MuonArgs args_of(const std::vector<Stack>& stacks) {
  MuonArgs args{.rates = rates};
  for (const Stack& s : stacks) args.stacks.push_back(s.tensors());
  return args;
}

void run_on_device(std::vector<Stack>& stacks) {
  std::vector<StackMirror> mirrors;
  MuonArgs args{.rates = rates};
  for (const Stack& s : stacks) args.stacks.push_back(mirrors.emplace_back(s).tensors());
  const ExactWorkspace memory(args.stacks);
  cuda::muon(nullptr, args, memory);
  for (size_t i = 0; i < stacks.size(); ++i) mirrors[i].read_back(stacks[i]);
}

// Sums over one matrix or several: of the squared differences of two updates, and what their cosine needs.
struct Comparison {
  double difference = 0, xx = 0, xy = 0, yy = 0;
  // The updates of matrix k.
  void add(const Array& before, const Array& x, const Array& y, int64_t k) {
    const int64_t n = before.size() / before.t().dim(0);
    for (int64_t i = k * n; i < (k + 1) * n; ++i) {
      const double a = x.get(i) - before.get(i), b = y.get(i) - before.get(i);
      difference += (a - b) * (a - b), xx += a * a, xy += a * b, yy += b * b;
    }
  }
  double relative() const { return std::sqrt(difference / yy); }
  double cosine() const { return xy / std::sqrt(xx * yy); }
  double norm_ratio() const { return std::sqrt(xx / yy); }
};

// Largest difference of the second moments of matrix k in units of their mean.
double second_difference(const Stack& got, const Stack& want, int64_t k) {
  const int64_t n = want.second.size() / want.second.t().dim(0);
  double largest = 0, sum = 0;
  for (int64_t i = k * n; i < (k + 1) * n; ++i) {
    sum += want.second.get(i);
    largest = std::max(largest, std::abs(got.second.get(i) - want.second.get(i)));
  }
  return largest / (sum / static_cast<double>(n));
}

struct Shape {
  int64_t R, C;
  std::vector<int64_t> counts;
};
std::string describe(const Shape& s) {
  return std::to_string(s.R) + " x " + std::to_string(s.C) + ", seed " + std::to_string(seed());
}

void expect_agreement(const Shape& shape, uint64_t salt) {
  const std::vector<Stack> before = make_stacks(salt, shape.counts, shape.R, shape.C);
  std::vector<Stack> got = before, twin = before, exact = before;
  cpu::muon(args_of(twin));
  MuonArgs full = args_of(exact);
  full.full_precision = true;
  cpu::muon(full);
  run_on_device(got);
  Comparison got_exact, twin_exact;
  for (size_t i = 0; i < got.size(); ++i) {
    expect_same("momentum", got[i].momentum, twin[i].momentum);
    for (int64_t k = 0; k < shape.counts[i]; ++k) {
      got_exact.add(before[i].param, got[i].param, exact[i].param, k);
      twin_exact.add(before[i].param, twin[i].param, exact[i].param, k);
      if (std::min(shape.R, shape.C) < 64) continue;
      const std::string where =
          "matrix " + std::to_string(k) + " of stack " + std::to_string(i) + ", " + describe(shape);
      Comparison with_twin;
      with_twin.add(before[i].param, got[i].param, twin[i].param, k);
      EXPECT_GT(with_twin.cosine(), 0.998) << where;
      EXPECT_NEAR(with_twin.norm_ratio(), 1, 1e-3) << where;
      EXPECT_LT(second_difference(got[i], twin[i], k), 5e-3) << where;
    }
  }
  EXPECT_LT(got_exact.relative(), 1.25 * twin_exact.relative() + 1e-3) << describe(shape);
}

TEST(CudaMuon, IsAsNearToFullPrecisionAsItsTwin) {
  ASSAY_NEEDS_GPU();
  const Shape shapes[] = {{128, 128, {2}},    {384, 128, {2, 1}}, {128, 384, {3}},    {768, 768, {2, 1}},
                          {1024, 768, {2}},   {768, 1024, {2}},   {640, 896, {1, 1}}, {300, 200, {2}},
                          {200, 332, {1, 2}}, {72, 72, {2, 1}},   {20, 2052, {2, 3}}, {64, 20, {9, 11}}};
  uint64_t salt = 200;
  for (const Shape& shape : shapes) expect_agreement(shape, ++salt);
}

// Those done by one block each, from 1 x 4 to the largest.
TEST(CudaMuon, SmallMatricesToo) {
  ASSAY_NEEDS_GPU();
  const Shape shapes[] = {{8, 768, {1, 1}}, {6, 12, {50, 50}}, {4, 128, {9, 1}}, {16, 2048, {2}}, {2048, 16, {2}},
                          {24, 4, {50}},    {16, 16, {30}},    {1, 8, {3}},      {8, 4, {40}}};
  uint64_t salt = 220;
  for (const Shape& shape : shapes) expect_agreement(shape, ++salt);
}

TEST(CudaMuon, AListGivesTheBitsOfItsStacksAlone) {
  ASSAY_NEEDS_GPU();
  const std::vector<int64_t> counts = {2, 1, 4};
  std::vector<Stack> together = make_stacks(230, counts, 384, 256), alone = make_stacks(230, counts, 384, 256);
  run_on_device(together);
  for (size_t i = 0; i < alone.size(); ++i) {
    std::vector<Stack> one = {alone[i]};
    run_on_device(one);
    EXPECT_TRUE(one[0].param.same_bytes(together[i].param)) << "stack " << i;
    EXPECT_TRUE(one[0].second.same_bytes(together[i].second)) << "stack " << i;
  }
}

// More stacks than one table holds, small and not; then more matrices than fit the limit, cut within a stack. In every
// case the bits are those of calls for parts of the list.
TEST(CudaMuon, LongListsAreCutIntoChunks) {
  ASSAY_NEEDS_GPU();
  const Shape lists[] = {
      {6, 12, std::vector<int64_t>(70, 1)}, {24, 20, std::vector<int64_t>(70, 1)}, {20, 20, {3, 15000, 2}}};
  for (const Shape& list : lists) {
    std::vector<Stack> together = make_stacks(240, list.counts, list.R, list.C), apart = together;
    EXPECT_LE(cuda::muon_workspace_bytes(args_of(together).stacks), limits::muon_workspace_bytes + 4096);
    run_on_device(together);
    for (size_t i = 0; i < apart.size(); ++i) {
      if (i % 10 != 0 && i + 1 < apart.size() && list.counts.size() > 3) continue;
      std::vector<Stack> one = {apart[i]};
      run_on_device(one);
      expect_same("param of stack " + std::to_string(i), together[i].param, one[0].param);
      expect_same("second moment of stack " + std::to_string(i), together[i].second, one[0].second);
    }
  }
}

TEST(CudaMuon, RunsInAGraph) {
  ASSAY_NEEDS_GPU();
  std::vector<Stack> direct = make_stacks(250, {2}, 256, 384), replayed = direct;
  run_on_device(direct);
  const StackMirror mirror(replayed[0]);
  const MuonArgs args{.stacks = {mirror.tensors()}, .rates = rates};
  const ExactWorkspace memory(args.stacks);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cuda_ok(cudaStreamCreate(&stream), "cudaStreamCreate");
  cuda_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  cuda::muon(stream, args, memory);
  cuda_ok(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  cuda_ok(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  cuda_ok(cudaGraphLaunch(executable, stream), "cudaGraphLaunch");
  mirror.read_back(replayed[0]);
  expect_same("param", replayed[0].param, direct[0].param);
  expect_same("second moment", replayed[0].second, direct[0].second);
  cuda_ok(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  cuda_ok(cudaGraphDestroy(graph), "cudaGraphDestroy");
  cuda_ok(cudaStreamDestroy(stream), "cudaStreamDestroy");
}

TEST(CudaMuon, AZeroGradientLeavesTheWeightsToDecayOnly) {
  ASSAY_NEEDS_GPU();
  std::vector<Stack> stacks = make_stacks(260, {1}, 136, 48);
  stacks[0].grad.fill(0), stacks[0].momentum.fill(0);
  const Array before = stacks[0].param;
  run_on_device(stacks);
  const double lr = rates.lr * std::sqrt(136.0 / 48.0);
  for (int64_t i = 0; i < before.size(); ++i)
    ASSERT_NEAR(stacks[0].param.get(i), before.get(i) * (1 - lr * rates.weight_decay), 1e-7) << "element " << i;
}

// These refuse before they touch the device.
TEST(CudaMuon, RefusesFullPrecisionF64AndOddRows) {
  const auto refusal = [](DType dtype, int64_t columns, bool full_precision) {
    const Array x(dtype, {1, 32, columns}), second(dtype, {1, std::max<int64_t>(32, columns)});
    const MuonArgs args{.stacks = {{x, x, x, second}}, .full_precision = full_precision};
    return error_of([&] { cuda::muon(nullptr, args, cuda::Workspace(nullptr, 0)); });
  };
  EXPECT_NE(refusal(DType::f32, 8, true).find("precision = fp32 is the reference of the CPU backend"),
            std::string::npos);
  EXPECT_NE(refusal(DType::f64, 8, false).find("f64[1, 32, 8]; on CUDA it is f32"), std::string::npos);
  EXPECT_NE(refusal(DType::f32, 10, false).find("multiples of 4 columns"), std::string::npos);
  EXPECT_NE(refusal(DType::f32, 64, false).find("bytes of workspace, there are 0"), std::string::npos);
}

}  // namespace
}  // namespace assay
