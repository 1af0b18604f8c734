// The clocks of live attempts: lease expiry, progress deadlines, wall-clock timeouts. Passive: time comes from the
// Clock, the caller asks tick() what has passed. All times inside are monotonic ms.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "spec/run_outcome.h"

namespace assay {

enum class AlarmKind { expired, stalled, timeout };
struct LeaseAlarm {
  int64_t attempt_id = 0;
  AlarmKind kind = AlarmKind::expired;
  std::string cause;  // "no progress for 600 s in phase step"
};

// How long an attempt may stay in a phase, or at a step, without a sign of progress. base/limits.h.
int64_t progress_deadline_ms(Phase phase);

class LeaseManager {
 public:
  explicit LeaseManager(const Clock& clock) : clock_(clock) {}

  // A lease granted, or taken over from an earlier life of the daemon. timeout_s: wall clock of the attempt, 0 = none.
  // running_ms: how long it has been running already, nothing if it has not started.
  void watch(int64_t attempt_id, Phase phase, int64_t timeout_s, std::optional<int64_t> running_ms);
  void forget(int64_t attempt_id) { leases_.erase(attempt_id); }
  void clear() { leases_.clear(); }

  void started(int64_t attempt_id);   // the wall clock of the attempt runs from now, unless it does already
  void stopping(int64_t attempt_id);  // asked to stop: no stalled or timeout alarm any more
  // Taken over as expired: no alarm until it is heard of.
  void expire(int64_t attempt_id);
  // The worker spoke of the lease: it is renewed. False if it had expired (it counts again from now).
  bool heard(int64_t attempt_id);
  // heard(), and progress if phase or step differ from the last call's.
  void progress(int64_t attempt_id, Phase phase, int64_t last_step);

  // Every alarm is given once: expired again only after heard(); stalled or timeout never twice.
  std::vector<LeaseAlarm> tick();
  // When tick() has something to say next; nothing if nothing is watched.
  std::optional<int64_t> next_deadline() const;

 private:
  struct Lease {
    int64_t heard_at = 0;
    int64_t progress_at = 0;
    Phase phase = Phase::load;
    int64_t last_step = -1;
    int64_t timeout_ms = 0;
    std::optional<int64_t> started_at;
    bool expired = false;
    bool stopping = false;
  };
  struct Deadline {
    int64_t at = 0;
    AlarmKind kind = AlarmKind::expired;
  };
  static std::optional<Deadline> next_of(const Lease& lease);

  const Clock& clock_;
  std::map<int64_t, Lease> leases_;
};

}  // namespace assay
