// The files of one attempt, all in one folder:
//   run.toml        the complete config                      (worker, before the trainer starts)
//   trainer.log     stdout and stderr of the trainer         (trainer's file descriptors, opened by the worker)
//   journal.bin     every step's metrics                     (trainer; worker/attempt/journal.h)
//   progress.json   phase and resumed_from_step              (trainer)
//   result.json     how the trainer ended, typed             (trainer, as its last act)
//   lease.json      attempt id, epoch, pid identity, acks    (worker; what a restarted worker recovers from)
// JSON files are written atomically: a reader sees the old or the new content.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/process.h"
#include "base/status.h"
#include "spec/run_outcome.h"

namespace assay {

struct AttemptFolder {
  std::string path;
  std::string config() const { return path + "/run.toml"; }
  std::string log() const { return path + "/trainer.log"; }
  std::string journal() const { return path + "/journal.bin"; }
  std::string progress() const { return path + "/progress.json"; }
  std::string result() const { return path + "/result.json"; }
  std::string lease() const { return path + "/lease.json"; }
};

struct Progress {
  Phase phase = Phase::load;
  int64_t resumed_from_step = -1;
};
Status write_progress(const AttemptFolder&, const Progress&);
// Nothing when the file is missing, data_loss when it cannot be read: a newer trainer may have other phases.
Result<std::optional<Progress>> read_progress(const AttemptFolder&);

Status write_result(const AttemptFolder&, const AttemptOutcome&);
// Nothing when there is no file (the trainer has not ended, or was killed); data_loss when there is one that cannot be
// read: how the trainer ended must never be guessed.
Result<std::optional<AttemptOutcome>> read_result(const AttemptFolder&);

// What the worker must remember about a lease to take it up again after its own death.
struct LeaseRecord {
  int64_t attempt_id = 0;
  int64_t lease_epoch = 0;
  std::string attempt_key;  // LeaseMessage::attempt_key
  int64_t attempt = 1;
  std::string run;
  int64_t timeout_s = 0;
  int64_t started_at_unix_ms = 0;
  StopReason stop_reason = StopReason::none;  // the first that was asked for
  std::optional<ProcessIdentity> trainer;
  std::optional<AttemptOutcome> outcome;  // set when it ended and the daemon has not acknowledged it
};
Status write_lease(const AttemptFolder&, const LeaseRecord&);
// Nothing when there is no file (nothing was started here); data_loss when it cannot be read: a trainer may be running
// that only this file names, so the folder's devices are not free.
Result<std::optional<LeaseRecord>> read_lease(const AttemptFolder&);

}  // namespace assay
