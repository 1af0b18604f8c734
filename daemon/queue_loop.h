// The one thread that drives a Queue: takes every input that has arrived, stages them all, commits once, answers.
#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/status.h"
#include "daemon/queue.h"

namespace assay {

class QueueLoop {
 public:
  // `queue` must outlive the loop and is used by its thread alone from here on.
  explicit QueueLoop(Queue& queue);
  ~QueueLoop();  // stop()

  using Task = std::function<void(Queue&)>;
  // Called on the loop's thread with the result of the commit that covers the task. Must not block.
  using Done = std::function<void(const Status&)>;
  // Any thread; never blocks. After stop(), `done` is called at once with `unavailable`.
  void post(Task task, Done done = {});
  // Any other thread: runs `f` on the queue, waits for the commit, and returns f's answer, or the commit's error.
  template <class T>
  Result<T> call(std::function<Result<T>(Queue&)> f);
  // Finishes what was posted before, then ends the thread.
  void stop();

 private:
  struct Input {
    Task task;
    Done done;
  };
  void run();
  void process(std::vector<Input> inputs);

  Queue& queue_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Input> inbox_;
  bool stop_ = false;
  std::thread thread_;
};

template <class T>
Result<T> QueueLoop::call(std::function<Result<T>(Queue&)> f) {
  std::optional<Result<T>> answer;
  std::promise<void> committed;
  post([&](Queue& queue) { answer.emplace(f(queue)); },
       [&](const Status& status) {
         if (!status.ok() && (!answer || answer->ok())) answer.emplace(status.error());
         committed.set_value();
       });
  committed.get_future().wait();
  return *std::move(answer);
}

}  // namespace assay
