#include "db/store_pair.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/log.h"
#include "base/text.h"

namespace assay {

namespace {

int64_t greatest(const QueueMark& mark, std::string_view counter) {
  const auto found = mark.find(counter);
  return found == mark.end() ? 0 : found->second;
}

// "3 attempts, 14 events": what queue.db does not know any longer; nothing if it is not behind.
std::string what_is_forgotten(const QueueMark& queue, const QueueMark& known) {
  std::string forgotten;
  bool behind = false;
  for (const auto& [counter, had] : known) {
    const int64_t lacks = had - greatest(queue, counter);
    if (lacks <= 0) continue;
    behind = true;
    if (counter == "lease_epoch") continue;
    const std::string_view one = std::string_view(counter).substr(0, counter.size() - 1);  // without its s
    forgotten += (forgotten.empty() ? "" : ", ") + plural(lacks, one);
  }
  return behind && forgotten.empty() ? "leases" : forgotten;
}

// Whether steps are missing that the end of the attempt speaks of. A failed one's step is the one it failed in, and a
// device may have been at work on the next one already; any other's is the last one made.
bool lacks_steps(const AttemptRow& attempt, const AttemptSummary& stored) {
  const bool failed = attempt.outcome.result == AttemptResult::failed;
  const int64_t made = failed ? attempt.outcome.step - 2 : attempt.outcome.step;
  return made >= std::max<int64_t>(attempt.resumed_from_step, 0) && stored.last_step < made;
}

// Attempts that ended after event `after`, and of which metrics.db lacks steps.
Result<std::vector<std::string>> attempts_without_steps(RunStore& runs, MetricStore& metrics, int64_t after) {
  constexpr int64_t events_per_read = 10'000;
  std::vector<std::string> lacking;
  while (true) {
    ASSAY_ASSIGN(const std::vector<EventRow> events, runs.events_after(after, events_per_read));
    for (const EventRow& event : events) {
      after = event.id;
      if (event.attempt_id == 0 || event.to_state != to_string(AttemptState::ended)) continue;
      ASSAY_ASSIGN(const AttemptContext ended, runs.get_attempt(event.attempt_id));
      ASSAY_ASSIGN(const AttemptSummary stored, metrics.summary(event.attempt_id));
      if (!lacks_steps(ended.attempt, stored)) continue;
      lacking.push_back(
          fmt::format("{}/{}/{} (attempt {})", ended.experiment, ended.tag, ended.run.name, ended.attempt.n));
    }
    if (static_cast<int64_t>(events.size()) < events_per_read) return lacking;
  }
}

EventNote note(EventKind kind, std::string cause) {
  log::warn("{}", cause);
  return {kind, std::move(cause)};
}

}  // namespace

Status tie_stores(RunStore& runs, MetricStore& metrics) {
  ASSAY_ASSIGN(const QueueMark known, metrics.queue_mark());
  ASSAY_ASSIGN(const QueueMark queue, runs.mark());
  if (const std::string forgotten = what_is_forgotten(queue, known); !forgotten.empty()) {
    const std::string cause = fmt::format(
        "queue.db is older than metrics.db (a backup was put back, or its last changes were lost): it has forgotten "
        "{}. What is new is numbered after them, so nothing of theirs is taken for another's; their files stay in "
        "runs/",
        forgotten);
    ASSAY_TRY(runs.move_past(known, note(EventKind::store_restored, cause)));
  }
  // A file of before events were counted cannot tell.
  if (known.empty() || known.contains("events")) {
    constexpr size_t named = 3;
    ASSAY_ASSIGN(const std::vector<std::string> lacking,
                 attempts_without_steps(runs, metrics, greatest(known, "events")));
    if (!lacking.empty()) {
      const std::string cause = fmt::format(
          "metrics.db is older than queue.db (a backup was put back, or its last changes were lost): it lacks steps of "
          "{}; their journals stay in runs/",
          first_of(lacking, named));
      ASSAY_TRY(runs.apply({note(EventKind::metrics_restored, cause)}));
    }
  }
  ASSAY_ASSIGN(const QueueMark now, runs.mark());
  return metrics.note(now);
}

}  // namespace assay
