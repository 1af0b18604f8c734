#include "engine/ops/cuda/host_link.h"

#include <algorithm>
#include <cstring>

#include "engine/ops/cuda/check.h"

namespace assay::cuda {

HostLink::HostLink(cudaStream_t stream) : stream_(stream) {
  for (Buffer& b : buffers_) {
    ASSAY_CUDA_CHECK("start", cudaMallocHost(&b.memory, buffer_bytes));
    ASSAY_CUDA_CHECK("start", cudaEventCreateWithFlags(&b.free, cudaEventDisableTiming));
  }
  for (cudaEvent_t& e : events_) ASSAY_CUDA_CHECK("start", cudaEventCreate(&e));
}

HostLink::~HostLink() {
  for (Buffer& b : buffers_) {
    if (b.free != nullptr) cudaEventDestroy(b.free);
    if (b.memory != nullptr) cudaFreeHost(b.memory);
  }
  for (cudaEvent_t e : events_)
    if (e != nullptr) cudaEventDestroy(e);
}

void HostLink::upload(void* dst, const void* src, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    Buffer& b = buffers_[next_buffer_];
    next_buffer_ = (next_buffer_ + 1) % buffers_.size();
    const size_t piece = std::min(bytes - done, buffer_bytes);
    ASSAY_CUDA_CHECK("copy_to_device", cudaEventSynchronize(b.free));
    std::memcpy(b.memory, static_cast<const char*>(src) + done, piece);
    ASSAY_CUDA_CHECK("copy_to_device",
                     cudaMemcpyAsync(static_cast<char*>(dst) + done, b.memory, piece, cudaMemcpyHostToDevice, stream_));
    ASSAY_CUDA_CHECK("copy_to_device", cudaEventRecord(b.free, stream_));
    done += piece;
  }
}

int64_t HostLink::mark() {
  const int64_t mark = next_mark_++;
  ASSAY_CUDA_CHECK("mark", cudaEventRecord(events_[static_cast<size_t>(mark % marks)], stream_));
  return mark;
}

cudaEvent_t HostLink::event_of(int64_t mark) const {
  ASSAY_OP_CHECK("wait", mark >= next_mark_ - marks && mark < next_mark_, "mark " + std::to_string(mark) + " is gone");
  return events_[static_cast<size_t>(mark % marks)];
}

void HostLink::wait(int64_t mark) {
  ASSAY_CUDA_CHECK("wait", cudaEventSynchronize(event_of(mark)));
}

double HostLink::elapsed_ms(int64_t from, int64_t to) {
  float ms = 0;
  ASSAY_CUDA_CHECK("elapsed", cudaEventElapsedTime(&ms, event_of(from), event_of(to)));
  return static_cast<double>(ms);
}

}  // namespace assay::cuda
