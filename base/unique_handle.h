// One owner for every C handle: unique_handle<sqlite3*, sqlite3_close_v2>, UniqueFd.
#pragma once

#include <unistd.h>

#include <utility>

namespace assay {

// Owns a handle of type T; Destroy(handle) is called once, unless the handle equals Null. Destroy must not throw.
template <class T, auto Destroy, T Null = T{}>
class unique_handle {
 public:
  unique_handle() = default;
  explicit unique_handle(T handle) : handle_(handle) {}
  unique_handle(unique_handle&& other) noexcept : handle_(other.release()) {}
  unique_handle& operator=(unique_handle&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~unique_handle() { reset(); }

  T get() const { return handle_; }
  explicit operator bool() const { return handle_ != Null; }
  T release() { return std::exchange(handle_, Null); }
  void reset(T handle = Null) {
    if (T old = std::exchange(handle_, handle); old != Null) Destroy(old);
  }
  // For C functions that return the handle through a pointer. Drops what was held.
  T* out() {
    reset();
    return &handle_;
  }

 private:
  T handle_ = Null;
};

using UniqueFd = unique_handle<int, ::close, -1>;

}  // namespace assay
