#include "daemon/queue.h"

#include <algorithm>

#include "base/log.h"
#include "db/store_pair.h"

namespace assay {

Queue::Queue(RunStore& runs, MetricStore& metrics, const Clock& clock, std::string home)
    : runs_(runs),
      clock_(clock),
      commit_(runs, metrics),
      fleet_(clock),
      leases_(clock),
      transitions_(runs, clock, fleet_, leases_, commit_),
      assigner_(runs, clock, fleet_, transitions_, commit_, std::move(home)),
      requests_(runs, clock, transitions_, assigner_, commit_),
      intake_(runs, metrics, fleet_, leases_, transitions_, commit_) {}

Result<std::unique_ptr<Queue>> Queue::open(RunStore& runs, MetricStore& metrics, const Clock& clock, std::string home) {
  std::unique_ptr<Queue> queue(new Queue(runs, metrics, clock, std::move(home)));
  ASSAY_TRY(tie_stores(runs, metrics));
  ASSAY_TRY(queue->load());
  // Nobody is connected to a daemon that has just started, whatever its former life wrote.
  ASSAY_ASSIGN(const auto workers, runs.list_workers());
  for (const WorkerRow& worker : workers)
    if (worker.state == WorkerState::connected)
      queue->commit_.stage({WorkerChange{worker.id, WorkerState::disconnected, "the daemon was started"}});
  ASSAY_TRY(queue->commit());
  return queue;
}

Status Queue::load() {
  ASSAY_ASSIGN(const bool held, runs_.queue_held());
  assigner_.hold(held);
  ASSAY_ASSIGN(const auto workers, runs_.list_workers());
  fleet_.load(workers);
  ASSAY_ASSIGN(const auto attempts, runs_.live_attempts());
  for (const AttemptContext& context : attempts) transitions_.take_over(context);
  return {};
}

Status Queue::reload(const Error& why) {
  log::error("not all of the last changes were stored, so the queue is read again: {}", why.message);
  fleet_.close_all("the daemon could not store its state; come back");
  transitions_.clear();
  requests_.committed();
  commit_.drop();
  assigner_.look();
  if (Status loaded = load(); !loaded.ok()) log::error("reading the queue again failed: {}", loaded.error().message);
  return why;
}

// --- commit ---------------------------------------------------------------------------------------------------------

Status Queue::commit() {
  ASSAY_TRY(commit_once());
  // Runs that the last commit put back into the queue were not visible to the store's claims before it.
  if (assigner_.due()) ASSAY_TRY(commit_once());
  return {};
}

Status Queue::commit_once() {
  if (commit_.failure()) return reload(Error(*commit_.failure()));
  std::vector<Assigner::Lease> leases = assigner_.assign();
  if (commit_.failure()) return reload(Error(*commit_.failure()));
  std::vector<ChangeList> groups;
  for (Assigner::Lease& lease : leases) groups.push_back(std::move(lease.group));
  const auto applied = commit_.write(std::move(groups));
  if (!applied.ok()) return reload(applied.error());
  if (Status started = start_leases(std::move(leases), *applied); !started.ok()) return reload(started.error());
  transitions_.committed();
  requests_.committed();
  assigner_.committed();
  commit_.deliver();
  return {};
}

Status Queue::start_leases(std::vector<Assigner::Lease> leases, const std::vector<Result<Applied>>& applied) {
  for (size_t i = 0; i < leases.size(); ++i) {
    if (applied[i].ok())
      ASSAY_TRY(assigner_.start(leases[i], applied[i]->attempts.front()));
    else  // nothing of it is stored and nothing is remembered; the next change of runs or devices tries again
      log::error("a lease was not granted: {}", applied[i].error().message);
  }
  return {};
}

// --- time -----------------------------------------------------------------------------------------------------------

void Queue::tick() {
  for (const LeaseAlarm& alarm : leases_.tick()) intake_.alarm(alarm);
  const auto due = runs_.next_retry_at();
  const bool retry_is_due = due.ok() && *due && **due <= clock_.unix_ms();
  if (fleet_.end_pauses() || retry_is_due) assigner_.look();
}

std::optional<int64_t> Queue::ms_to_next_tick() {
  std::optional<int64_t> wait = fleet_.ms_to_end_of_pause();
  const auto until = [&](int64_t ms) { wait = std::min(wait.value_or(ms), ms); };
  if (const auto deadline = leases_.next_deadline()) until(*deadline - clock_.monotonic_ms());
  // A retry that is due but finds no device waits for one; it is not polled.
  if (const auto due = runs_.next_retry_at(); due.ok() && *due && **due > clock_.unix_ms())
    until(**due - clock_.unix_ms());
  if (wait) wait = std::max<int64_t>(*wait, 0);
  return wait;
}

}  // namespace assay
