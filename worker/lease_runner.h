// One lease: starts its trainer, watches it, streams its journal, reports its end, and remembers all of it on disk
// until the daemon has acknowledged the end, so that a worker killed at any time takes up where it was.
//
// Single-threaded: every call comes from the worker's loop. Nothing here waits.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "worker/attempt/attempt_files.h"
#include "worker/attempt/journal.h"
#include "worker/process_control.h"
#include "worker/uplink.h"

namespace assay {

// What runners share. All of it outlives them.
struct RunnerContext {
  const Clock& clock;
  ProcessControl& processes;
  Uplink& uplink;
  std::string trainer;        // absolute path of assay-trainer
  bool allow_faults = false;  // passed on to the trainer
};

class LeaseRunner {
 public:
  // The folder that the attempt gets: the lease's, or if others' files are there, that name with .2, .3, ...
  // already_exists if the very attempt was executed in one of them.
  static Result<std::string> choose_folder(const LeaseMessage&);
  // Creates the lease's folder, which must not exist, and starts the trainer. On an error nothing runs and nothing is
  // left behind.
  static Result<std::unique_ptr<LeaseRunner>> start(const LeaseMessage&, const RunnerContext&);
  // Takes up the lease that a former life of this worker held in `folder`: a live trainer is adopted, a dead one's end
  // is reported. Nothing if no trainer had been started there.
  static std::unique_ptr<LeaseRunner> recover(const LeaseKey&, const std::string& folder, const RunnerContext&);

  LeaseKey key() const { return {record_.attempt_id, record_.lease_epoch}; }
  LeaseStatus status();
  HeldLease held() const { return {key(), acked_seq_, record_.attempt_key}; }

  // The daemon is there (again) and has everything up to `seq`: send what follows, and where the attempt stands.
  void welcome(int64_t seq);
  void metrics_stored(int64_t seq);
  // Durable, and only the first reason counts.
  void stop(StopReason);
  // The lease is not ours any longer: kill the trainer and report nothing.
  void abandon();
  void end_acknowledged() { forgettable_ = ended(); }

  // Look at process, log, journal and deadlines; send what is due if `online`.
  void tick(bool online);

  // The process is the live trainer, or one of its group.
  bool owns(int64_t pid) const;
  pid_t trainer_pid() const { return record_.trainer ? record_.trainer->pid : 0; }
  bool ended() const { return record_.outcome.has_value(); }
  // Nothing is left to do: the files may stay, the lease itself can be forgotten.
  bool forgettable() const { return forgettable_; }
  // Readable when the trainer ends, -1 if there is none to wait for.
  int exit_fd() const { return leader_ended_ ? -1 : exit_watch_.get(); }

 private:
  LeaseRunner(LeaseRecord, const std::string& folder, const RunnerContext&);

  Status launch(const LeaseMessage&);
  void save();
  void begin_stop();
  void watch_process();
  void watch_deadlines();
  void clear_group();
  void finish();
  void learn(const StepMetrics& last);
  const std::optional<Progress>& progress();
  void give_up_journal(const Error&);
  void send_started();
  void send_metrics();
  void send_end();
  AttemptEvent event(AttemptNews) const;

  RunnerContext context_;
  AttemptFolder folder_;
  LeaseRecord record_;
  JournalReader journal_;

  // Process.
  bool own_child_ = false;
  bool leader_ended_ = false;
  bool died_unseen_ = false;
  bool killed_ = false;
  bool abandoned_ = false;
  bool forgettable_ = false;
  std::optional<ExitStatus> exit_;
  UniqueFd exit_watch_;
  int64_t started_ms_ = 0;  // monotonic
  int64_t kill_at_ms_ = 0;  // monotonic; 0 = no stop asked for

  // Reporting.
  std::optional<Progress> progress_;  // as it was last readable
  std::string progress_problem_;
  int64_t sent_seq_ = 0;
  int64_t acked_seq_ = 0;
  int64_t last_step_ = -1;
  double peak_mem_mib_ = 0;
  bool journal_sent_ = false;
  std::string journal_problem_;
  bool started_sent_ = false;
  bool resumed_sent_ = false;
  bool stopping_sent_ = false;
  bool end_sent_ = false;
};

}  // namespace assay
