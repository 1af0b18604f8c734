// The words for how things stand, what happens and how it ended. Each list below is the one place of its words: the
// enum, its text, the constraints of the database, the wire, the command line's filters and the lists in docs/ follow
// from it (base/words.h). Order matters where a comment says so.
#pragma once

#include "base/words.h"

namespace assay {

// paused: nothing pauses runs yet; the word is reserved in the database and the command line.
#define ASSAY_RUN_STATES(X)                                                           \
  X(queued, "queued", "waits for a device")                                           \
  X(held, "held", "waits until it is released")                                       \
  X(retry_wait, "retry_wait", "waits until the backoff before its next attempt ends") \
  X(running, "running", "has a live attempt")                                         \
  X(paused, "paused", "reserved; no run is paused today")                             \
  X(completed, "completed", "trained to the end")                                     \
  X(failed, "failed", "its last attempt failed and none follows by itself")           \
  X(cancelled, "cancelled", "ended because a person or a policy wanted it to")
ASSAY_WORDS(RunState, "run state", ASSAY_RUN_STATES);

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
#define ASSAY_PHASES(X)                                  \
  X(load, "load", "reads the corpus and the checkpoint") \
  X(plan, "plan", "lays out memory and records graphs")  \
  X(step, "step", "trains")                              \
  X(checkpoint, "checkpoint", "saves")
ASSAY_WORDS(Phase, "phase", ASSAY_PHASES);

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

// What a worker tells of an attempt.
#define ASSAY_ATTEMPT_NEWS(X)                             \
  X(started, "started", "its trainer runs")               \
  X(resumed, "resumed", "it goes on from a checkpoint")   \
  X(stopping, "stopping", "its trainer was told to stop") \
  X(ended, "ended", "its trainer is gone")                \
  X(refused, "refused", "the worker did not take the lease")
ASSAY_WORDS(AttemptNews, "attempt news", ASSAY_ATTEMPT_NEWS);

#define ASSAY_DEVICE_KINDS(X)                        \
  X(cpu, "cpu", "the CPUs of a host, as one device") \
  X(cuda, "cuda", "an NVIDIA GPU")
ASSAY_WORDS(DeviceKind, "kind of device", ASSAY_DEVICE_KINDS);

inline bool is_terminal(RunState s) {
  return s == RunState::completed || s == RunState::failed || s == RunState::cancelled;
}

}  // namespace assay
