// The words for how things stand, what happens and how it ended. Each list below is the one place of its words: the
// enum, its text, the constraints of the database, the wire, the command line's filters and the lists in docs/ follow
// from it (base/words.h). Order matters where a comment says so.
#pragma once

#include <vector>

#include "base/words.h"

namespace assay {

// In the order in which lists count them. `paused` is reserved for pausing and continuing runs; nothing pauses one yet.
#define ASSAY_RUN_STATES(X)                                                           \
  X(running, "running", "has a live attempt")                                         \
  X(queued, "queued", "waits for a device")                                           \
  X(retry_wait, "retry_wait", "waits until the backoff before its next attempt ends") \
  X(held, "held", "waits until it is released")                                       \
  X(paused, "paused", "reserved; no run is paused today")                             \
  X(completed, "completed", "trained to the end")                                     \
  X(failed, "failed", "its last attempt failed and none follows by itself")           \
  X(cancelled, "cancelled", "ended because a person or a policy wanted it to")
ASSAY_WORDS(RunState, "run state", ASSAY_RUN_STATES);

// Where a run stands in its life: what lists, counts, colours and the indexes of queue.db go by.
enum class RunStage { active, waiting, ended };
constexpr RunStage stage_of(RunState state) {
  switch (state) {
    case RunState::running:
    case RunState::paused:
      return RunStage::active;
    case RunState::queued:
    case RunState::retry_wait:
    case RunState::held:
      return RunStage::waiting;
    case RunState::completed:
    case RunState::failed:
    case RunState::cancelled:
      break;
  }
  return RunStage::ended;
}
constexpr bool is_terminal(RunState state) {
  return stage_of(state) == RunStage::ended;
}
// In enum order: those of a stage, and those of runs that have not ended.
inline std::vector<RunState> states_of(RunStage stage) {
  std::vector<RunState> states;
  for (size_t i = 0; i < words_of(RunState{}).size(); ++i)
    if (const auto state = static_cast<RunState>(i); stage_of(state) == stage) states.push_back(state);
  return states;
}
inline std::vector<RunState> live_states() {
  std::vector<RunState> states = states_of(RunStage::active);
  for (const RunState state : states_of(RunStage::waiting)) states.push_back(state);
  return states;
}

// In the order in which an attempt can go through them.
#define ASSAY_ATTEMPT_STATES(X)                                                 \
  X(leased, "leased", "given to a worker")                                      \
  X(starting, "starting", "its trainer runs and has not made a step")           \
  X(running, "running", "trains")                                               \
  X(stopping, "stopping", "told to stop")                                       \
  X(unreachable, "unreachable", "its worker has not been heard of for a lease") \
  X(ended, "ended", "over; see its result")
ASSAY_WORDS(AttemptState, "attempt state", ASSAY_ATTEMPT_STATES);

#define ASSAY_ATTEMPT_RESULTS(X)                                                      \
  X(none, "none", "not ended")                                                        \
  X(completed, "completed", "trained to the end")                                     \
  X(failed, "failed", "ended by an error; the reason says which kind")                \
  X(cancelled, "cancelled", "ended because its run is cancelled")                     \
  X(stopped, "stopped", "ended with its worker, which was told to: nobody's failure") \
  X(not_started, "not_started", "its trainer never ran: it has no number and is no more than an event")
ASSAY_WORDS(AttemptResult, "attempt result", ASSAY_ATTEMPT_RESULTS);

// What part of its work an attempt is in; each has its own progress deadline (base/limits.h).
#define ASSAY_PHASES(X)                                                            \
  X(load, "load", "reads corpus and checkpoint, lays out memory, chooses kernels") \
  X(step, "step", "trains")                                                        \
  X(checkpoint, "checkpoint", "saves")
ASSAY_WORDS(Phase, "phase", ASSAY_PHASES);

// communication_error is reserved for runs over several devices, whose ranks talk to each other.
#define ASSAY_FAILURE_REASONS(X)                                                               \
  X(none, "none", "")                                                                          \
  X(config_invalid, "config_invalid", "the config cannot be trained")                          \
  X(data_error, "data_error", "the corpus is missing, damaged or does not suit the config")    \
  X(plan_error, "plan_error", "the step cannot be planned, or its plan was rebuilt too often") \
  X(out_of_memory, "out_of_memory", "the device or the host has too little memory")            \
  X(non_finite, "non_finite", "the loss or a gradient is not finite")                          \
  X(device_error, "device_error", "the GPU or its driver failed")                              \
  X(communication_error, "communication_error", "reserved; no run spans devices today")        \
  X(timeout, "timeout", "train.timeout_s has passed")                                          \
  X(stalled, "stalled", "no progress for longer than its phase may take")                      \
  X(worker_lost, "worker_lost", "its worker or host died")                                     \
  X(crashed, "crashed", "the trainer was ended by a signal")                                   \
  X(internal, "internal", "anything else")
ASSAY_WORDS(FailureReason, "failure reason", ASSAY_FAILURE_REASONS);

#define ASSAY_STOP_REASONS(X)                         \
  X(none, "none", "")                                 \
  X(cancelled, "cancelled", "its run is cancelled")   \
  X(stalled, "stalled", "no progress")                \
  X(timeout, "timeout", "train.timeout_s has passed") \
  X(worker_stopped, "worker_stopped", "nothing is wrong with it, its worker is to end")
ASSAY_WORDS(StopReason, "stop reason", ASSAY_STOP_REASONS);

// What the feed tells of: a row of queue.db's table events each.
#define ASSAY_EVENT_KINDS(X)                                                                           \
  X(run_enqueued, "run_enqueued", "a run is new in the queue")                                         \
  X(run_started, "run_started", "a run gets an attempt")                                               \
  X(run_requeued, "run_requeued", "a run waits again: its attempt is gone, or its backoff has passed") \
  X(run_retry_wait, "run_retry_wait", "a run failed and waits for its next attempt")                   \
  X(run_retried, "run_retried", "`assay retry`")                                                       \
  X(run_held, "run_held", "`assay hold`")                                                              \
  X(run_released, "run_released", "`assay release`")                                                   \
  X(run_completed, "run_completed", "a run has trained to the end")                                    \
  X(run_failed, "run_failed", "a run has failed for good")                                             \
  X(run_cancelled, "run_cancelled", "a run is cancelled")                                              \
  X(cancel_requested, "cancel_requested", "a run is to be cancelled once its attempt has ended")       \
  X(policy_changed, "policy_changed", "a spec was enqueued again with another policy")                 \
  X(lease_granted, "lease_granted", "a new attempt is given to a worker")                              \
  X(attempt_started, "attempt_started", "its trainer runs")                                            \
  X(attempt_running, "attempt_running", "it makes steps")                                              \
  X(attempt_stopping, "attempt_stopping", "it is told to stop")                                        \
  X(attempt_unreachable, "attempt_unreachable", "its worker has not been heard of for a lease")        \
  X(attempt_back, "attempt_back", "its worker is heard of again")                                      \
  X(attempt_ended, "attempt_ended", "it ended by itself, or because it was told to")                   \
  X(attempt_lost, "attempt_lost", "it died with its worker or host")                                   \
  X(attempt_stopped, "attempt_stopped", "it ended with its worker, which was told to end")             \
  X(attempt_not_started, "attempt_not_started", "its trainer never ran")                               \
  X(worker_connected, "worker_connected", "a worker is there")                                         \
  X(worker_disconnected, "worker_disconnected", "a worker is away")                                    \
  X(device_drained, "device_drained", "others compute on a device: it gets no run")                    \
  X(device_undrained, "device_undrained", "nobody else does any longer")                               \
  X(queue_held, "queue_held", "`assay hold` of the whole queue")                                       \
  X(queue_released, "queue_released", "`assay release` of it")                                         \
  X(store_restored, "store_restored", "queue.db is older than metrics.db")                             \
  X(metrics_restored, "metrics_restored", "metrics.db is older than queue.db")
ASSAY_WORDS(EventKind, "event kind", ASSAY_EVENT_KINDS);

#define ASSAY_WORKER_STATES(X) X(connected, "connected", "") X(disconnected, "disconnected", "")
ASSAY_WORDS(WorkerState, "worker state", ASSAY_WORKER_STATES);

#define ASSAY_DEVICE_KINDS(X)                   \
  X(cpu, "cpu", "the CPUs of a host, together") \
  X(cuda, "cuda", "one GPU")
ASSAY_WORDS(DeviceKind, "device kind", ASSAY_DEVICE_KINDS);

#define ASSAY_DEVICE_STATES(X)                                                 \
  X(free, "free", "gets the next run that fits it")                            \
  X(busy, "busy", "an attempt holds it")                                       \
  X(drained, "drained", "others compute on it: it gets no run until they end") \
  X(offline, "offline", "its worker is away")
ASSAY_WORDS(DeviceState, "device state", ASSAY_DEVICE_STATES);

// What a worker tells of an attempt.
#define ASSAY_ATTEMPT_NEWS(X)                             \
  X(started, "started", "its trainer runs")               \
  X(resumed, "resumed", "it goes on from a checkpoint")   \
  X(stopping, "stopping", "its trainer was told to stop") \
  X(ended, "ended", "its trainer is gone")                \
  X(refused, "refused", "the worker did not take the lease")
ASSAY_WORDS(AttemptNews, "attempt news", ASSAY_ATTEMPT_NEWS);

}  // namespace assay
