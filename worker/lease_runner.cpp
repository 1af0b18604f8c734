#include "worker/lease_runner.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "worker/attempt_end.h"
#include "worker/attempt_log.h"
#include "worker/device_inventory.h"

namespace assay {

LeaseRunner::LeaseRunner(LeaseRecord record, const std::string& folder, const RunnerContext& context)
    : context_(context), folder_{folder}, record_(std::move(record)), journal_(folder_.journal()) {
  // Elapsed time survives a restart of the worker through the wall clock; from here on it cannot go back.
  const int64_t elapsed = std::max<int64_t>(0, context_.clock.unix_ms() - record_.started_at_unix_ms);
  started_ms_ = context_.clock.monotonic_ms() - elapsed;
}

// --- start and recovery --------------------------------------------------------------------------------------------

// A folder that is there already is of an attempt that this queue does not know: its database was deleted, or replaced
// by an older copy that gives the same numbers again.
Result<std::string> LeaseRunner::choose_folder(const LeaseMessage& lease) {
  for (int n = 1;; ++n) {
    const AttemptFolder folder{n == 1 ? lease.folder : fmt::format("{}.{}", lease.folder, n)};
    std::error_code failed;
    const bool taken = std::filesystem::exists(folder.path, failed);
    if (failed) return Error{ErrorCode::internal, fmt::format("cannot look at {}: {}", folder.path, failed.message())};
    if (!taken) return folder.path;
    const auto record = read_lease(folder);
    if (record.ok() && *record && (*record)->attempt_key == lease.attempt_key)
      return Error{ErrorCode::already_exists,
                   fmt::format("{} already holds this attempt; an attempt is executed once", folder.path)};
  }
}

Result<std::unique_ptr<LeaseRunner>> LeaseRunner::start(const LeaseMessage& lease, const RunnerContext& context) {
  LeaseRecord record;
  record.attempt_id = lease.lease.attempt_id;
  record.lease_epoch = lease.lease.epoch;
  record.attempt_key = lease.attempt_key;
  record.attempt = lease.attempt;
  record.run = lease.run;
  record.timeout_s = lease.timeout_s;
  record.started_at_unix_ms = context.clock.unix_ms();
  std::unique_ptr<LeaseRunner> runner(new LeaseRunner(std::move(record), lease.folder, context));
  if (const Status launched = runner->launch(lease); !launched.ok()) {
    std::error_code ignored;
    std::filesystem::remove_all(lease.folder, ignored);
    return launched.error();
  }
  return runner;
}

Status LeaseRunner::launch(const LeaseMessage& lease) {
  ASSAY_TRY(make_folders(lease.run_folder, 0700));
  ASSAY_TRY(make_folders(folder_.path, 0700));
  ASSAY_TRY(write_file_atomically(folder_.config(), lease.config_toml));
  // Written before the trainer exists: a worker killed between the two looks for a trainer of this folder.
  ASSAY_TRY(write_lease(folder_, record_));

  SpawnOptions options;
  options.program = context_.trainer;
  options.arguments = {"--config",      folder_.config(),
                       "--folder",      folder_.path,
                       "--attempt",     std::to_string(record_.attempt),
                       "--checkpoints", lease.run_folder + "/checkpoints"};
  const auto add = [&](const char* flag, const std::string& value) {
    options.arguments.push_back(flag);
    options.arguments.push_back(value);
  };
  add("--attempt-key", lease.attempt_key);
  for (const std::string& key : lease.earlier_keys) add("--earlier-key", key);
  if (context_.allow_faults) options.arguments.push_back("--allow-faults");
  // The trainer sees the GPUs it was given and no others; none if it runs on the CPU.
  options.environment["CUDA_VISIBLE_DEVICES"] = fmt::format("{}", fmt::join(gpus_of(lease.device_ids), ","));
  options.output_path = folder_.log();
  options.new_session = true;
  auto trainer = context_.processes.spawn(options);
  if (!trainer.ok()) return trainer.error();
  own_child_ = true;
  record_.trainer = *trainer;
  exit_watch_ = context_.processes.watch(record_.trainer->pid);
  save();
  return {};
}

std::unique_ptr<LeaseRunner> LeaseRunner::recover(const LeaseKey& key, const std::string& folder,
                                                  const RunnerContext& context) {
  const auto read = read_lease(AttemptFolder{folder});
  if (read.ok() && !*read) return nullptr;
  LeaseRecord record = read.ok() ? **read : LeaseRecord{};
  if (!read.ok()) log::error("{}", read.error().message);
  record.attempt_id = key.attempt_id;
  record.lease_epoch = key.epoch;
  if (!record.trainer) record.trainer = context.processes.find(context.trainer, folder);
  std::unique_ptr<LeaseRunner> runner(new LeaseRunner(std::move(record), folder, context));
  const LeaseRecord& known = runner->record_;
  if (known.outcome) {
    runner->leader_ended_ = true;
  } else if (known.trainer && context.processes.is_alive(*known.trainer)) {
    runner->exit_watch_ = context.processes.watch(known.trainer->pid);
    if (known.stop_reason != StopReason::none) runner->begin_stop();
    runner->save();
    log::info("attempt {} ({}): adopted its trainer, pid {}", key.attempt_id, known.run, known.trainer->pid);
  } else {
    runner->leader_ended_ = true;
    runner->died_unseen_ = true;
  }
  return runner;
}

// The record is what a next life of this worker reads; when it cannot be written (disk full) the attempt goes on, and
// the next life finds the trainer by its folder instead.
void LeaseRunner::save() {
  if (const Status saved = write_lease(folder_, record_); !saved.ok()) log::error("{}", saved.error().message);
}

// --- what the daemon says ------------------------------------------------------------------------------------------

void LeaseRunner::welcome(int64_t seq) {
  started_sent_ = resumed_sent_ = stopping_sent_ = end_sent_ = journal_sent_ = false;
  acked_seq_ = sent_seq_ = seq;
  journal_problem_.clear();
  // The last stored record is read again to learn the last step, which a restarted worker does not know.
  Status sought = journal_.seek_after(std::max<int64_t>(0, seq - 1));
  if (sought.ok() && seq > 0) {
    const auto last = journal_.read(1);
    if (!last.ok())
      sought = last.error();
    else if (last->empty())
      sought = Error{ErrorCode::data_loss, fmt::format("{} has no record {}", folder_.journal(), seq)};
    else
      learn(last->back().metrics);
  }
  if (!sought.ok()) give_up_journal(sought.error());
}

void LeaseRunner::metrics_stored(int64_t seq) {
  acked_seq_ = std::max(acked_seq_, seq);
}

void LeaseRunner::stop(StopReason reason) {
  if (leader_ended_ || record_.stop_reason != StopReason::none) return;
  record_.stop_reason = reason;
  save();
  log::info("attempt {} ({}): stopping, {}", record_.attempt_id, record_.run, to_string(reason));
  begin_stop();
}

void LeaseRunner::begin_stop() {
  kill_at_ms_ = context_.clock.monotonic_ms() + limits::stop_grace_ms;
  context_.processes.signal_group(*record_.trainer, SIGTERM);
}

void LeaseRunner::abandon() {
  if (abandoned_) return;
  abandoned_ = true;
  if (ended()) {  // its end is stored already, or nobody wants it
    forgettable_ = true;
    return;
  }
  log::warn("attempt {} ({}): the lease is no longer ours, killing its trainer", record_.attempt_id, record_.run);
  if (record_.trainer) context_.processes.signal_group(*record_.trainer, SIGKILL);
}

// --- supervision ---------------------------------------------------------------------------------------------------

void LeaseRunner::tick(bool online) {
  if (!ended() && !forgettable_) watch_process();
  if (!online || abandoned_ || forgettable_) return;
  send_started();
  send_metrics();
  if (ended() && journal_sent_) send_end();
}

void LeaseRunner::watch_process() {
  if (!leader_ended_) {
    if (own_child_) exit_ = context_.processes.peek_exit(record_.trainer->pid);
    leader_ended_ = own_child_ ? exit_.has_value() : !context_.processes.is_alive(*record_.trainer);
    if (!leader_ended_) watch_deadlines();
  }
  if (leader_ended_) clear_group();
}

void LeaseRunner::watch_deadlines() {
  const int64_t now = context_.clock.monotonic_ms();
  if (const Status capped = cap_log(folder_.log(), limits::log_bytes, limits::log_slack_bytes); !capped.ok())
    log::error("{}", capped.error().message);
  if (record_.timeout_s > 0 && now - started_ms_ > record_.timeout_s * 1000) stop(StopReason::timeout);
  if (kill_at_ms_ != 0 && now >= kill_at_ms_) {
    if (!killed_) log::warn("attempt {} ({}): did not stop in time, killing it", record_.attempt_id, record_.run);
    killed_ = true;
    context_.processes.signal_group(*record_.trainer, SIGKILL);
  }
}

// The trainer itself has ended. Whatever it left in its group holds memory and devices of the next run: kill it and
// wait until nothing is left. The trainer stays unreaped meanwhile, so its group's number cannot become another's.
void LeaseRunner::clear_group() {
  if (record_.trainer && context_.processes.group_runs(*record_.trainer)) {
    context_.processes.signal_group(*record_.trainer, SIGKILL);
    return;
  }
  if (own_child_) context_.processes.reap(record_.trainer->pid);
  if (abandoned_)
    forgettable_ = true;
  else
    finish();
}

void LeaseRunner::finish() {
  EndFacts facts;
  if (auto result = read_result(folder_); result.ok())
    facts.result = *result;
  else
    facts.result_problem = result.error().message;
  facts.exit = exit_;
  facts.stop_reason = record_.stop_reason;
  facts.killed_by_us = killed_;
  facts.host_restarted = record_.trainer && record_.trainer->boot_id != boot_id();
  facts.died_unseen = died_unseen_;
  facts.timeout_s = record_.timeout_s;
  facts.phase = status().phase;
  facts.log_tail = log_tail(folder_.log(), limits::log_tail_bytes);
  record_.outcome = describe_end(facts);
  save();
  log::info("attempt {} ({}): {}", record_.attempt_id, record_.run, outcome_text(*record_.outcome));
}

// --- reporting -----------------------------------------------------------------------------------------------------

bool LeaseRunner::owns(int64_t pid) const {
  return record_.trainer && !ended() && (pid == trainer_pid() || ::getpgid(static_cast<pid_t>(pid)) == trainer_pid());
}

// What cannot be read is said once, and what was known before stands.
const std::optional<Progress>& LeaseRunner::progress() {
  const auto read = read_progress(folder_);
  if (read.ok()) {
    if (*read) progress_ = *read;
  } else if (progress_problem_ != read.error().message) {
    progress_problem_ = read.error().message;
    log::error("attempt {} ({}): {}", record_.attempt_id, record_.run, progress_problem_);
  }
  return progress_;
}

LeaseStatus LeaseRunner::status() {
  return {key(), progress().value_or(Progress{}).phase, last_step_};
}

AttemptEvent LeaseRunner::event(AttemptNews kind) const {
  AttemptEvent event;
  event.lease = key();
  event.kind = kind;
  return event;
}

void LeaseRunner::send_started() {
  // Of an attempt that is over before it was looked at, too: the end alone would not tell where it resumed.
  if (!(started_sent_ && resumed_sent_)) {
    const std::optional<Progress>& progress = this->progress();
    AttemptEvent news = event(started_sent_ ? AttemptNews::resumed : AttemptNews::started);
    news.log_path = folder_.log();
    news.resumed_from_step = progress ? progress->resumed_from_step : -1;
    const bool resumed = news.resumed_from_step >= 0;
    if (!started_sent_ || resumed) context_.uplink.send(news);
    started_sent_ = true;
    // Once steps are made, or it ended, it is known whether the trainer resumed.
    resumed_sent_ = resumed || ended() || (progress && progress->phase == Phase::step);
  }
  if (record_.stop_reason != StopReason::none && !stopping_sent_ && !ended()) {
    AttemptEvent news = event(AttemptNews::stopping);
    news.message = to_string(record_.stop_reason);
    context_.uplink.send(news);
    stopping_sent_ = true;
  }
}

void LeaseRunner::learn(const StepMetrics& last) {
  last_step_ = last.step;
  peak_mem_mib_ = std::max(peak_mem_mib_, last.peak_mem_mib);
}

// Records that cannot be read cannot be sent; send_end says so.
void LeaseRunner::give_up_journal(const Error& error) {
  log::error("attempt {}: {}", record_.attempt_id, error.message);
  journal_problem_ = error.message;
}

void LeaseRunner::send_metrics() {
  while (!journal_sent_ && sent_seq_ - acked_seq_ < limits::unacked_steps) {
    // Asked before the read: a trainer that had ended by then can have added nothing since.
    const bool complete = ended();
    if (!journal_problem_.empty()) {
      journal_sent_ = complete;
      return;
    }
    const auto records = journal_.read(limits::steps_per_message);
    if (!records.ok()) {
      give_up_journal(records.error());
    } else if (records->empty()) {
      journal_sent_ = complete;
      return;
    } else {
      MetricBatch batch{key(), records->front().seq, {}};
      batch.steps.reserve(records->size());
      for (const JournalRecord& record : *records) batch.steps.push_back(record.metrics);
      context_.uplink.send(batch);
      sent_seq_ = records->back().seq;
      learn(batch.steps.back());
    }
  }
}

void LeaseRunner::send_end() {
  if (end_sent_) return;
  AttemptEvent news = event(AttemptNews::ended);
  news.outcome = record_.outcome;
  AttemptOutcome& outcome = *news.outcome;
  // What only the journal tells about an end that the trainer did not describe.
  if (outcome.result == AttemptResult::failed && outcome.step < 0 && last_step_ >= 0) outcome.step = last_step_ + 1;
  if (outcome.result == AttemptResult::completed && !journal_problem_.empty()) {  // steps are missing
    outcome.result = AttemptResult::failed;
    outcome.reason = FailureReason::internal;
    outcome.error = "the run completed, but its steps cannot be read: " + journal_problem_;
  }
  if (outcome.peak_mem_mib == 0) outcome.peak_mem_mib = peak_mem_mib_;
  context_.uplink.send(news);
  end_sent_ = true;
}

}  // namespace assay
