#include "engine/ops/cuda/cuda_ops.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>
#include <vector>

#include "base/limits.h"
#include "engine/ops/cuda/check.h"
#include "engine/ops/cuda/cudnn_attention.h"
#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/graph.h"
#include "engine/ops/cuda/host_link.h"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/muon.h"
#include "engine/ops/cuda/tune.h"

namespace assay {
namespace {

using namespace cuda;

class CudaOps final : public Ops {
 public:
  explicit CudaOps(const CudaOptions& options)
      : options_(options), tiling_(options.coalesce_tiling ? Tiling{} : fixed_tiling) {
    ASSAY_CUDA_CHECK("start", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    link_ = std::make_unique<HostLink>(stream_);
    workspace_ = allocate(limits::cuda_workspace_bytes, "the workspace of the CUDA ops");
  }
  ~CudaOps() override {
    cudaStreamSynchronize(stream_);
    for (auto& [shape, memory] : attention_memory_) cudaFree(memory);
    cudaFree(workspace_);
    link_.reset();
    cudaStreamDestroy(stream_);
  }

  void embed_norm(const EmbedNormArgs& a) override { cuda::embed_norm(stream_, a, tiling_); }
  void embed_norm_grad(const EmbedNormGradArgs& a) override { cuda::embed_norm_grad(stream_, a, scratch(), tiling_); }
  void embed_grad(const EmbedGradArgs& a) override { cuda::embed_grad(stream_, a, scratch()); }
  void mix_norm(const MixNormArgs& a) override { cuda::mix_norm(stream_, a, tiling_); }
  void mix_norm_grad(const MixNormGradArgs& a) override { cuda::mix_norm_grad(stream_, a, scratch(), tiling_); }
  void gemm(const GemmArgs& a) override { cuda::gemm(stream_, a, scratch()); }
  void gemm_fp8(const GemmFp8Args& a) override { cuda::gemm_fp8(stream_, a, scratch()); }
  void quantize(const QuantizeArgs& a) override { cuda::quantize(stream_, a, scratch()); }
  void prepare_weights(const PrepareWeightsArgs& a) override { cuda::prepare_weights(stream_, a, scratch()); }
  void scale_update(const ScaleUpdateArgs& a) override { cuda::scale_update(stream_, a); }
  void project_qkv(const ProjectQkvArgs& a) override { cuda::project_qkv(stream_, a, scratch(), tiling_); }
  void qk_norm_rope(const QkNormRopeArgs& a) override { cuda::qk_norm_rope(stream_, a, tiling_); }
  void qk_norm_rope_grad(const QkNormRopeGradArgs& a) override {
    cuda::qk_norm_rope_grad(stream_, a, scratch(), tiling_);
  }
  void attention(const AttentionArgs& a) override {
    auto& [engine, memory] = attention_for(a.qkv, a.B, a.T, a.window);
    ++cuda::launches;
    engine->forward(stream_, a.qkv.data, a.out.data, a.lse.as<float>(), memory);
  }
  void attention_grad(const AttentionGradArgs& a) override {
    auto& [engine, memory] = attention_for(a.qkv, a.B, a.T, a.window);
    ++cuda::launches;
    engine->backward(stream_, a.qkv.data, a.out.data, a.lse.as<float>(), a.dout.data, a.dqkv.data, memory);
  }
  void norm_route(const NormRouteArgs& a) override { cuda::norm_route(stream_, a, tiling_); }
  void moe_norm_grad(const MoeNormGradArgs& a) override { cuda::moe_norm_grad(stream_, a, scratch(), tiling_); }
  void route_plan(const RoutePlanArgs& a) override { cuda::route_plan(stream_, a, scratch()); }
  void router_bias_update(const RouterBiasArgs& a) override { cuda::router_bias_update(stream_, a); }
  void permute(const PermuteArgs& a) override { cuda::permute(stream_, a, scratch(), tiling_); }
  void combine(const CombineArgs& a) override { cuda::combine(stream_, a); }
  void grouped_gemm(const GroupedGemmArgs& a) override { cuda::grouped_gemm(stream_, a, scratch()); }
  void grouped_wgrad(const GroupedWgradArgs& a) override { cuda::grouped_wgrad(stream_, a, scratch()); }
  void relu2(const Relu2Args& a) override { cuda::relu2(stream_, a); }
  void relu2_grad(const Relu2GradArgs& a) override { cuda::relu2_grad(stream_, a); }
  void softcap_xent(const SoftcapXentArgs& a) override { cuda::softcap_xent(stream_, a, scratch()); }
  void sum_squares(const SumSquaresArgs& a) override { cuda::sum_squares(stream_, a, scratch()); }
  void sum(const SumArgs& a) override { cuda::sum(stream_, a, scratch()); }
  void add(const AddArgs& a) override { cuda::add(stream_, a); }
  void cast(const CastArgs& a) override { cuda::cast(stream_, a); }
  void fill_zero(const FillZeroArgs& a) override { cuda::fill_zero(stream_, a); }
  void adamw(const AdamWArgs& a) override { cuda::adamw(stream_, a); }
  void muon(const MuonArgs& a) override { cuda::muon(stream_, a, scratch()); }
  void expert_load(const ExpertLoadArgs& a) override { cuda::expert_load(stream_, a); }
  void step_verdict(const StepVerdictArgs& a) override { cuda::step_verdict(stream_, a); }

  void* allocate(size_t bytes, const char* what) override {
    void* memory = nullptr;
    ++counters_.allocations;
    const cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());  // it is not sticky: the next launch must not find it
      size_t free = 0, total = 0;
      ASSAY_CUDA_CHECK("allocate", cudaMemGetInfo(&free, &total));
      throw EngineError(FailureReason::out_of_memory,
                        std::string(what) + ": asked for " + std::to_string(bytes) + " bytes, " +
                            std::to_string(total - free) + " of " + std::to_string(total) + " bytes are in use",
                        "allocate", what);
    }
    ASSAY_CUDA_CHECK("allocate", error, what);
    allocated_[memory] = static_cast<int64_t>(bytes);
    allocated_bytes_ += static_cast<int64_t>(bytes);
    counters_.device_bytes_peak = std::max(counters_.device_bytes_peak, allocated_bytes_);
    return memory;
  }
  void release(void* memory) override {
    if (memory == nullptr) return;
    cudaFree(memory);
    if (const auto found = allocated_.find(memory); found != allocated_.end()) {
      allocated_bytes_ -= found->second;
      allocated_.erase(found);
    }
  }
  void copy_to_device(void* dst, const void* src, size_t bytes) override { link_->upload(dst, src, bytes); }
  void copy_to_host(void* dst, const void* src, size_t bytes) override {
    ASSAY_CUDA_CHECK("copy_to_host", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream_));
    ASSAY_CUDA_CHECK("copy_to_host", cudaStreamSynchronize(stream_));
    ++counters_.host_syncs;
  }

  std::string choose_tiling(const TilingRequest& request) override {
    if (!options_.coalesce_tiling) return "tiling: fixed, blocks of 128 threads for every shape";
    const std::vector<KnobTimes> times = time_tilings(stream_, request, scratch());
    tiling_ = chosen_tiling(times);
    return describe(times);
  }

  bool runs_ahead() const override { return true; }
  void* allocate_host(size_t bytes, const char* what) override {
    void* memory = nullptr;
    ASSAY_CUDA_CHECK("allocate_host", cudaMallocHost(&memory, bytes), what);
    return memory;
  }
  void release_host(void* memory) override {
    if (memory != nullptr) cudaFreeHost(memory);
  }
  void copy_to_host_later(void* dst, const void* src, size_t bytes) override {
    ASSAY_CUDA_CHECK("copy_to_host_later", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream_));
  }
  int64_t mark() override {
    newest_mark_ = link_->mark();
    launches_at_mark_ = cuda::launches;
    return newest_mark_;
  }
  void wait(int64_t mark) override {
    if (mark == newest_mark_ && launches_at_mark_ == cuda::launches)
      ++counters_.host_syncs;  // nothing is queued behind
    link_->wait(mark);
  }
  double elapsed_ms(int64_t from, int64_t to) override { return link_->elapsed_ms(from, to); }

  void replay(std::unique_ptr<Recording>& recording, const std::function<void()>& work) override {
    if (recording == nullptr) {
      const auto begin = std::chrono::steady_clock::now();
      recording = Graph::capture(stream_, work);
      ++counters_.captures;
      counters_.capture_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    static_cast<const Graph&>(*recording).launch(stream_);
  }
  OpsCounters counters() const override {
    OpsCounters counters = counters_;
    counters.launches = cuda::launches;
    return counters;
  }

 private:
  using AttentionKey = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>;

  Workspace scratch() const { return {workspace_, limits::cuda_workspace_bytes}; }

  std::pair<std::unique_ptr<CudnnAttention>, void*>& attention_for(const Tensor& qkv, int64_t B, int64_t T,
                                                                   int64_t window) {
    const int64_t heads = qkv.dim(2), head_dim = qkv.dim(3);
    auto& entry = attention_[AttentionKey{B, T, heads, head_dim, window}];
    if (entry.first == nullptr) {
      entry.first = CudnnAttention::create({B, T, heads, head_dim, window, options_.deterministic});
      const size_t bytes = entry.first->workspace_bytes();
      if (bytes > 0)
        entry.second = attention_memory_[bytes] ? attention_memory_[bytes]
                                                : attention_memory_[bytes] = allocate(bytes, "attention workspace");
    }
    return entry;
  }

  CudaOptions options_;
  Tiling tiling_;
  cudaStream_t stream_ = nullptr;
  void* workspace_ = nullptr;
  std::unique_ptr<HostLink> link_;
  OpsCounters counters_;
  std::map<void*, int64_t> allocated_;  // bytes of what has not been released
  int64_t allocated_bytes_ = 0;
  int64_t newest_mark_ = -1, launches_at_mark_ = 0;
  std::map<AttentionKey, std::pair<std::unique_ptr<CudnnAttention>, void*>> attention_;
  std::map<size_t, void*> attention_memory_;  // by size: layers of one shape share it
};

}  // namespace

bool cuda_available(std::string* why) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    *why = error == cudaSuccess ? "no NVIDIA GPU" : std::string("no usable NVIDIA GPU: ") + cudaGetErrorString(error);
    return false;
  }
  int device = 0, major = 0, minor = 0;
  ASSAY_CUDA_CHECK("start", cudaGetDevice(&device));
  ASSAY_CUDA_CHECK("start", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  ASSAY_CUDA_CHECK("start", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  if (major == 9 && minor == 0) return true;
  *why = "the GPU has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
         "; the kernels are built for Hopper (9.0)";
  return false;
}

std::unique_ptr<Ops> make_cuda_ops(const CudaOptions& options) {
  std::string why;
  if (!cuda_available(&why)) throw EngineError(FailureReason::device_error, why, "start");
  return std::make_unique<CudaOps>(options);
}

}  // namespace assay
