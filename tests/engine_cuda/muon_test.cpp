// Muon on CUDA against its CPU twin. Momentum is the same arithmetic, so bit for bit; what follows goes through BF16
// products summed in another order, where a value that falls on the other side of a rounding boundary moves by 2^-8.
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

struct Difference {
  double cosine = 0, norm_ratio = 0, second = 0;  // second: largest, in units of the mean second moment
};

Difference compare(const Array& before, const Stack& got, const Stack& want, int64_t k) {
  const int64_t n = before.size() / before.t().dim(0), lines = want.second.size() / before.t().dim(0);
  double xy = 0, xx = 0, yy = 0, mean = 0;
  for (int64_t i = k * n; i < (k + 1) * n; ++i) {
    const double x = got.param.get(i) - before.get(i), y = want.param.get(i) - before.get(i);
    xy += x * y, xx += x * x, yy += y * y;
  }
  Difference d{xy / std::sqrt(xx * yy), std::sqrt(xx / yy)};
  for (int64_t i = k * lines; i < (k + 1) * lines; ++i) {
    mean += want.second.get(i) / static_cast<double>(lines);
    d.second = std::max(d.second, std::abs(got.second.get(i) - want.second.get(i)));
  }
  d.second /= mean;
  return d;
}

struct Shape {
  int64_t R, C;
  std::vector<int64_t> counts;
};

TEST(CudaMuon, AgreesWithItsTwin) {
  ASSAY_NEEDS_GPU();
  const Shape shapes[] = {{128, 128, {2}},  {384, 128, {2, 1}}, {128, 384, {3}}, {768, 768, {3, 1}}, {1024, 768, {2}},
                          {768, 1024, {2}}, {640, 896, {1, 1}}, {300, 200, {2}}, {200, 332, {1, 2}}, {72, 72, {2, 1}},
                          {4, 128, {1, 1}}, {2, 12, {1, 3}},    {24, 4, {2}},    {1, 8, {1}}};
  uint64_t salt = 200;
  for (const Shape& shape : shapes) {
    std::vector<Stack> got = make_stacks(++salt, shape.counts, shape.R, shape.C);
    std::vector<Stack> want = make_stacks(salt, shape.counts, shape.R, shape.C);
    const std::vector<Stack> before = want;
    cpu::muon(args_of(want));
    run_on_device(got);
    for (size_t i = 0; i < got.size(); ++i) {
      const std::string where =
          "stack " + std::to_string(i) + " of " + before[i].param.t().describe() + ", seed " + std::to_string(seed());
      EXPECT_TRUE(got[i].momentum.same_bytes(want[i].momentum)) << where;
      for (int64_t k = 0; k < shape.counts[i]; ++k) {
        const Difference d = compare(before[i].param, got[i], want[i], k);
        std::printf("%s: 1-cos %.2e ratio-1 %.2e second %.2e\n", where.c_str(), 1 - d.cosine, d.norm_ratio - 1,
                    d.second);
        EXPECT_GT(d.cosine, 0.999) << where;
        EXPECT_NEAR(d.norm_ratio, 1, 1e-2) << where;
        EXPECT_LT(d.second, 2e-2) << where;
      }
    }
  }
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

// More stacks than one table holds, then more matrices than fit the limit: both are cut into chunks, the latter within
// a stack.
TEST(CudaMuon, LongListsAreCutIntoChunks) {
  ASSAY_NEEDS_GPU();
  for (const std::vector<int64_t>& counts : {std::vector<int64_t>(70, 1), std::vector<int64_t>{3, 15000, 2}}) {
    std::vector<Stack> got = make_stacks(240, counts, 2, 12), want = make_stacks(240, counts, 2, 12);
    const std::vector<Stack> before = want;
    EXPECT_LE(cuda::muon_workspace_bytes(args_of(want).stacks), limits::muon_workspace_bytes + 4096);
    cpu::muon(args_of(want));
    run_on_device(got);
    int far = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_TRUE(got[i].momentum.same_bytes(want[i].momentum)) << "stack " << i << " of " << counts.size();
      for (int64_t k = 0; k < counts[i]; ++k) far += !(compare(before[i].param, got[i], want[i], k).cosine > 0.99);
    }
    EXPECT_EQ(far, 0) << counts.size() << " stacks";
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
    const Array x(dtype, {1, 8, columns}), second(dtype, {1, std::max<int64_t>(8, columns)});
    const MuonArgs args{.stacks = {{x, x, x, second}}, .full_precision = full_precision};
    return error_of([&] { cuda::muon(nullptr, args, cuda::Workspace(nullptr, 0)); });
  };
  EXPECT_NE(refusal(DType::f32, 8, true).find("on CUDA they are BF16"), std::string::npos);
  EXPECT_NE(refusal(DType::f64, 8, false).find("f64[1, 8, 8]; on CUDA it is f32"), std::string::npos);
  EXPECT_NE(refusal(DType::f32, 10, false).find("multiples of 4 columns"), std::string::npos);
  EXPECT_NE(refusal(DType::f32, 8, false).find("bytes of workspace, there are 0"), std::string::npos);
}

}  // namespace
}  // namespace assay
