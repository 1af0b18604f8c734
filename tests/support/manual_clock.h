// Time that moves only when a test says so. Safe to read from other threads while the test advances it.
#pragma once

#include <atomic>

#include "base/clock.h"

namespace assay {

class ManualClock final : public Clock {
 public:
  // Starts on 2026-02-24 15:49:46 UTC; the monotonic clock starts elsewhere, so that mixing the two shows.
  explicit ManualClock(int64_t unix_ms = 1'771'948'186'000) : unix_ms_(unix_ms) {}

  int64_t unix_ms() const override { return unix_ms_; }
  int64_t monotonic_ms() const override { return monotonic_ms_; }

  void advance_ms(int64_t ms) {
    unix_ms_ += ms;
    monotonic_ms_ += ms;
  }
  // The wall clock jumps (NTP, an operator); the monotonic one does not.
  void set_unix_ms(int64_t unix_ms) { unix_ms_ = unix_ms; }

 private:
  std::atomic<int64_t> unix_ms_;
  std::atomic<int64_t> monotonic_ms_{1'000'000};
};

}  // namespace assay
