#include "engine/ops/cuda/cudnn_attention.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "base/limits.h"
#include "engine/ops/cuda/check.h"
#include "engine/ops/error.h"

// cudnn-frontend loads cuDNN at run time and leaves the handle's definition to the program.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace assay::cuda {
namespace {

namespace fe = cudnn_frontend;

enum Uid : int64_t { uid_q = 1, uid_k, uid_v, uid_o, uid_stats, uid_do, uid_dq, uid_dk, uid_dv };

std::string describe(const AttentionShape& s) {
  return "batch " + std::to_string(s.batch) + ", sequence " + std::to_string(s.sequence_len) + ", heads " +
         std::to_string(s.heads) + " of " + std::to_string(s.head_dim) + ", window " + std::to_string(s.window);
}

// One handle per process: the engine is single-threaded and cuDNN handles are expensive.
cudnnHandle_t shared_handle() {
  static cudnnHandle_t handle = [] {
    cudnnHandle_t h = nullptr;
    cudnn_frontend::cudnn_dlhandle = ::dlopen("libcudnn.so.9", RTLD_NOW);
    if (cudnn_frontend::cudnn_dlhandle == nullptr)
      throw EngineError(FailureReason::device_error,
                        std::string("cuDNN was not found (") + ::dlerror() + "): install libcudnn 9.10 or newer");
    const size_t version = fe::detail::get_backend_version();
    if (version < limits::oldest_cudnn)
      throw EngineError(FailureReason::device_error, "cuDNN " + std::to_string(version) +
                                                         " is too old: attention needs 9.10 (" +
                                                         std::to_string(limits::oldest_cudnn) + ") or newer");
    if (fe::detail::create_handle(&h) != CUDNN_STATUS_SUCCESS)
      throw EngineError(FailureReason::device_error, "cuDNN could not be started on this device");
    return h;
  }();
  return handle;
}

void check(fe::error_t e, const char* what, const AttentionShape& s) {
  if (e.is_bad())
    throw EngineError(FailureReason::plan_error,
                      std::string("cuDNN attention ") + what + " (" + describe(s) + "): " + e.get_message(),
                      "attention");
}

class Attention final : public CudnnAttention {
 public:
  explicit Attention(const AttentionShape& s) : shape_(s), handle_(shared_handle()) {
    build_forward();
    build_backward();
  }

  size_t workspace_bytes() const override { return workspace_; }

  void forward(cudaStream_t stream, const void* qkv, void* out, float* lse, void* workspace) override {
    run(forward_, stream, workspace,
        {{uid_q, part(qkv, 0)}, {uid_k, part(qkv, 1)}, {uid_v, part(qkv, 2)}, {uid_o, out}, {uid_stats, lse}});
  }

  void backward(cudaStream_t stream, const void* qkv, const void* out, const float* lse, const void* dout, void* dqkv,
                void* workspace) override {
    run(backward_, stream, workspace,
        {{uid_q, part(qkv, 0)},
         {uid_k, part(qkv, 1)},
         {uid_v, part(qkv, 2)},
         {uid_o, const_cast<void*>(out)},
         {uid_stats, const_cast<float*>(lse)},
         {uid_do, const_cast<void*>(dout)},
         {uid_dq, part(dqkv, 0)},
         {uid_dk, part(dqkv, 1)},
         {uid_dv, part(dqkv, 2)}});
  }

 private:
  using Variant = std::unordered_map<int64_t, void*>;
  using TensorPtr = std::shared_ptr<fe::graph::Tensor_attributes>;

  void* part(const void* packed, int64_t index) const {
    return const_cast<char*>(static_cast<const char*>(packed)) + index * shape_.heads * shape_.head_dim * 2;
  }
  // [batch, heads, T, head_dim] over rows of `parts` x heads x head_dim elements.
  fe::graph::Tensor_attributes layout(const char* name, Uid uid, int64_t parts) const {
    const int64_t row = parts * shape_.heads * shape_.head_dim;
    return fe::graph::Tensor_attributes()
        .set_name(name)
        .set_uid(uid)
        .set_dim({shape_.batch, shape_.heads, shape_.sequence_len, shape_.head_dim})
        .set_stride({shape_.sequence_len * row, shape_.head_dim, row, 1});
  }
  fe::graph::Tensor_attributes stats_layout() const {
    return fe::graph::Tensor_attributes()
        .set_name("lse")
        .set_uid(uid_stats)
        .set_dim({shape_.batch, shape_.heads, shape_.sequence_len, 1})
        .set_stride({shape_.heads * shape_.sequence_len, shape_.sequence_len, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  static void set_types(fe::graph::Graph& graph) {
    graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }
  template <class Attributes>
  void set_mask(Attributes& a) const {
    a.set_attn_scale(1.0f / std::sqrt(static_cast<float>(shape_.head_dim)));
    a.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
    a.set_diagonal_band_right_bound(0);
    if (shape_.window < shape_.sequence_len) a.set_diagonal_band_left_bound(static_cast<int>(shape_.window));
  }
  void mark_output(const TensorPtr& t, Uid uid, int64_t parts) const {
    const auto wanted = layout("", uid, parts);
    t->set_output(true).set_uid(uid).set_dim(wanted.get_dim()).set_stride(wanted.get_stride());
  }
  void finish(fe::graph::Graph& graph, const char* what) {
    check(graph.validate(), what, shape_);
    check(graph.build_operation_graph(handle_), what, shape_);
    check(graph.create_execution_plans({fe::HeurMode_t::A}), what, shape_);
    check(graph.check_support(handle_), what, shape_);
    check(graph.build_plans(handle_), what, shape_);
    int64_t bytes = 0;
    check(graph.get_workspace_size(bytes), what, shape_);
    workspace_ = std::max(workspace_, static_cast<size_t>(bytes));
  }
  void build_forward() {
    set_types(forward_);
    auto q = forward_.tensor(layout("q", uid_q, 3));
    auto k = forward_.tensor(layout("k", uid_k, 3));
    auto v = forward_.tensor(layout("v", uid_v, 3));
    auto options = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true);
    set_mask(options);
    auto [o, stats] = forward_.sdpa(q, k, v, options);
    mark_output(o, uid_o, 1);
    const auto s = stats_layout();
    stats->set_output(true)
        .set_uid(uid_stats)
        .set_dim(s.get_dim())
        .set_stride(s.get_stride())
        .set_data_type(fe::DataType_t::FLOAT);
    finish(forward_, "forward");
  }
  void build_backward() {
    set_types(backward_);
    auto q = backward_.tensor(layout("q", uid_q, 3));
    auto k = backward_.tensor(layout("k", uid_k, 3));
    auto v = backward_.tensor(layout("v", uid_v, 3));
    auto o = backward_.tensor(layout("o", uid_o, 1));
    auto d_o = backward_.tensor(layout("do", uid_do, 1));
    auto stats = backward_.tensor(stats_layout());
    auto options = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
    set_mask(options);
    options.set_deterministic_algorithm(shape_.deterministic);
    auto [dq, dk, dv] = backward_.sdpa_backward(q, k, v, o, d_o, stats, options);
    mark_output(dq, uid_dq, 3);
    mark_output(dk, uid_dk, 3);
    mark_output(dv, uid_dv, 3);
    finish(backward_, "backward");
  }
  void run(fe::graph::Graph& graph, cudaStream_t stream, void* workspace, Variant pointers) {
    if (fe::detail::set_stream(handle_, stream) != CUDNN_STATUS_SUCCESS)
      throw EngineError(FailureReason::device_error, "cuDNN refused the stream", "attention");
    auto e = graph.execute(handle_, pointers, workspace);
    if (e.is_bad())
      throw EngineError(FailureReason::device_error, "cuDNN attention (" + describe(shape_) + "): " + e.get_message(),
                        "attention");
  }

  AttentionShape shape_;
  cudnnHandle_t handle_;
  fe::graph::Graph forward_, backward_;
  size_t workspace_ = 0;
};

}  // namespace

std::unique_ptr<CudnnAttention> CudnnAttention::create(const AttentionShape& shape) {
  ASSAY_CUDA_TAKES("attention", cuda_limits, head_dim, shape.head_dim);
  return std::make_unique<Attention>(shape);
}

}  // namespace assay::cuda
