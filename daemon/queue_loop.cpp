#include "daemon/queue_loop.h"

#include <chrono>

#include "base/log.h"

namespace assay {

QueueLoop::QueueLoop(Queue& queue) : queue_(queue), thread_([this] { run(); }) {}

QueueLoop::~QueueLoop() {
  stop();
}

void QueueLoop::post(Task task, Done done) {
  {
    std::lock_guard lock(mutex_);
    if (!stop_) {
      inbox_.push_back({std::move(task), std::move(done)});
      wake_.notify_one();
      return;
    }
  }
  if (done) done(Error{ErrorCode::unavailable, "the daemon is stopping"});
}

void QueueLoop::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void QueueLoop::run() {
  while (true) {
    const std::optional<int64_t> sleep_ms = queue_.ms_to_next_tick();
    std::unique_lock lock(mutex_);
    const auto woken = [this] { return stop_ || !inbox_.empty(); };
    if (sleep_ms) {
      wake_.wait_for(lock, std::chrono::milliseconds(*sleep_ms), woken);
    } else {
      wake_.wait(lock, woken);
    }
    if (stop_ && inbox_.empty()) return;
    std::vector<Input> inputs = std::exchange(inbox_, {});
    lock.unlock();
    process(std::move(inputs));
  }
}

void QueueLoop::process(std::vector<Input> inputs) {
  for (const Input& input : inputs) input.task(queue_);
  queue_.tick();
  const Status committed = queue_.commit();
  for (const Input& input : inputs)
    if (input.done) input.done(committed);
}

}  // namespace assay
