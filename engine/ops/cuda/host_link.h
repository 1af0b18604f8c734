// Host side of a stream: page-locked memory for copies that nobody waits for, and marks in the stream's order.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace assay::cuda {

class HostLink {
 public:
  explicit HostLink(cudaStream_t);
  ~HostLink();
  HostLink(const HostLink&) = delete;
  HostLink& operator=(const HostLink&) = delete;

  // The source may change on return: it is copied to one of two page-locked buffers first, in pieces of their size.
  void upload(void* dst, const void* src, size_t bytes);
  // A point in the stream; the last `marks` of them can be waited for.
  int64_t mark();
  void wait(int64_t mark);
  double elapsed_ms(int64_t from, int64_t to);

  static constexpr int64_t marks = 16;

 private:
  static constexpr size_t buffer_bytes = 8u << 20;
  struct Buffer {
    void* memory = nullptr;
    cudaEvent_t free = nullptr;  // after the last copy out of it
  };

  cudaEvent_t event_of(int64_t mark) const;

  cudaStream_t stream_;
  std::array<Buffer, 2> buffers_{};
  size_t next_buffer_ = 0;
  std::array<cudaEvent_t, marks> events_{};
  int64_t next_mark_ = 0;
};

}  // namespace assay::cuda
