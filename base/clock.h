// Time as a dependency: programs use SystemClock, tests use the manual clock in tests/support.
#pragma once

#include <cstdint>
#include <string>

namespace assay {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t unix_ms() const = 0;       // wall clock, ms since 1970 UTC: what is stored and shown
  virtual int64_t monotonic_ms() const = 0;  // never goes back: what leases and timeouts are measured with
};

class SystemClock final : public Clock {
 public:
  int64_t unix_ms() const override;
  int64_t monotonic_ms() const override;
};

// "2026-02-24 16:30:21" in local time.
std::string format_local_time(int64_t unix_ms);
// "20260224_163021" in local time: the default tag of an experiment.
std::string format_tag(int64_t unix_ms);

}  // namespace assay
