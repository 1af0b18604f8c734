// Wakes those who follow the events table.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace assay {

class EventFeed {
 public:
  void notify() {
    std::lock_guard lock(mutex_);
    ++version_;
    changed_.notify_all();
  }
  // Ends every wait for good.
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  int64_t version() {
    std::lock_guard lock(mutex_);
    return version_;
  }
  // Until the version is another than `seen`, or `at_most` has passed. False when closed.
  bool wait(int64_t seen, std::chrono::milliseconds at_most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, at_most, [&] { return closed_ || version_ != seen; });
    return !closed_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t version_ = 0;
  bool closed_ = false;
};

}  // namespace assay
