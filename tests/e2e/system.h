// The real programs in a home of their own: assayd (which starts assay-worker, which starts assay-trainer) and a
// client. Everything waits for conditions with a deadline; whatever still runs at the end is killed.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/process.h"
#include "proto/queue.grpc.pb.h"
#include "spec/step_metrics.h"
#include "tests/support/temp_folder.h"

namespace assay {

class System {
 public:
  System();  // makes data and home, starts nothing
  ~System();

  void start_daemon();
  void kill_daemon();
  pid_t daemon_pid() const { return daemon_; }
  // Ends with its exit status and what it printed.
  struct Ended {
    ExitStatus status;
    std::string output;
  };
  Ended run_second_daemon();
  // The pid in the worker's lock file, 0 if there is none.
  pid_t worker_pid() const;

  // A spec with one run "a" of `steps` tiny steps; `train` and `top` are further TOML: keys of train, lines of the run.
  std::string spec(int64_t steps, const std::string& train = "", const std::string& top = "") const;
  // The same with runs "r0", "r1", ... instead of "a".
  std::string spec_of_many(int runs, int64_t steps) const;
  void enqueue(const std::string& spec_text);
  v1::Run run(const std::string& name = "a");
  std::vector<v1::Run> runs();
  std::vector<StepMetrics> metrics(int64_t attempt, const std::string& name = "a");
  // Their step numbers.
  std::vector<int64_t> steps(int64_t attempt, const std::string& name = "a");
  void retry(const std::string& name = "a");
  void cancel(const std::string& name = "a");
  // Asks the daemon to end itself and its workers, and waits until both have.
  void shut_down();

  // Until the run is in this state (returned), at most 40 s.
  v1::Run wait_state(const std::string& state, const std::string& name = "a");
  // Until the daemon has stored a step >= `step` of the newest attempt.
  v1::Run wait_step(int64_t step, const std::string& name = "a");
  // Polls `condition` until it holds; fails the test with `what` and the logs after the deadline.
  void wait(const std::string& what, const std::function<bool()>& condition);

  // Of the run's newest attempt.
  std::string attempt_folder(const v1::Run&) const;
  ProcessIdentity trainer(const v1::Run&) const;
  // The newest attempt's log, as the daemon reads it.
  std::string log(const std::string& name = "a");
  std::string home() const { return temp_.path() + "/" + home_name_; }
  // Between a shut_down() and the next start_daemon().
  void move_home();
  std::string logs() const;

 private:
  std::string one_run(const std::string& name, int64_t steps, const std::string& train, const std::string& top) const;

  TempFolder temp_;
  std::string home_name_ = "home";
  pid_t daemon_ = 0;
  std::unique_ptr<v1::QueueService::Stub> queue_;
};

}  // namespace assay
