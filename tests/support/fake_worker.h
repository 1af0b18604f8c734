// A worker without processes or network: it does what assay-worker does with its leases, when the test says so.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "daemon/queue.h"

namespace assay {

class FakeWorker {
 public:
  struct Held {
    LeaseOrder order;
    int64_t execution = 0;  // no two of this worker's have the same
    int64_t steps = 0;      // in its journal
    int64_t acked = 0;      // journal records known to be stored
    bool ended = false;
    AttemptOutcome outcome;
    std::string stop_reason;
  };

  explicit FakeWorker(std::string id, int gpus = 0, std::string host = "host") {
    greeting_.worker = {id, host, "boot-1", 100, 1, WorkerState::connected, 0};
    if (gpus == 0) greeting_.devices.push_back({"cpu:" + id, id, DeviceKind::cpu, "a cpu", int64_t{8} << 30});
    for (int i = 0; i < gpus; ++i)
      greeting_.devices.push_back({id + "-gpu" + std::to_string(i), id, DeviceKind::cuda, "a gpu", int64_t{80} << 30});
  }
  ~FakeWorker() { cut(); }
  FakeWorker(const FakeWorker&) = delete;
  FakeWorker& operator=(const FakeWorker&) = delete;

  // --- its connection ---
  void connect(Queue& queue) {
    cut();
    link_ = std::make_shared<Link>(this);
    greeting_.leases.clear();
    greeting_.attempt_keys.clear();
    for (const auto& [id, lease] : held) {
      greeting_.leases.push_back(lease.order.lease);
      greeting_.attempt_keys[id] = lease.order.attempt_key;
    }
    for (DeviceRow& device : greeting_.devices)
      device.drained_by = occupied.contains(device.id) ? occupied.at(device.id) : "";
    queue.greet(link_, greeting_);
  }
  void disconnect(Queue& queue) {
    auto link = link_;
    cut();
    if (link) queue.disconnected(link.get());
  }
  // The daemon is gone: nothing more arrives.
  void cut() {
    if (link_) link_->worker = nullptr;
    link_.reset();
  }
  bool connected() const { return link_ != nullptr; }
  const WorkerLink* link() const { return link_.get(); }

  // --- what it tells ---
  void heartbeat(Queue& queue, Phase phase = Phase::step) {
    HeartbeatReport report{.occupied = occupied};
    for (const auto& [id, lease] : held)
      if (!lease.ended) report.leases.push_back({lease.order.lease, phase, lease.steps - 1});
    queue.heartbeat(link_.get(), report);
  }
  void tell_started(Queue& queue, int64_t attempt) { report(queue, attempt, "started"); }
  static double loss_of(int64_t execution, int64_t step) {
    return static_cast<double>(execution) + 1.0 / static_cast<double>(step + 2);
  }
  // Everything after what is acknowledged, at most `most` steps.
  void tell_steps(Queue& queue, int64_t attempt, int64_t most = 1'000) {
    const Held& lease = held.at(attempt);
    StepReport report{lease.order.lease, lease.acked + 1, {}};
    for (int64_t seq = lease.acked + 1; seq <= lease.steps && most > 0; ++seq, --most) {
      StepMetrics step;
      step.step = seq - 1;
      step.loss = loss_of(lease.execution, step.step);
      step.dt_ms = 10;
      report.steps.push_back(step);
    }
    if (!report.steps.empty()) queue.steps(link_.get(), report);
  }
  void tell_end(Queue& queue, int64_t attempt) { report(queue, attempt, "ended"); }
  void tell_refused(Queue& queue, int64_t attempt, const std::string& why) {
    report(queue, attempt, "refused", why);
    held.erase(attempt);
  }

  // --- what its trainers do ---
  void make_steps(int64_t attempt, int64_t n) { held.at(attempt).steps += n; }
  void end(int64_t attempt, AttemptResult result = AttemptResult::completed, FailureReason reason = FailureReason::none,
           const std::string& error = {}) {
    Held& lease = held.at(attempt);
    lease.ended = true;
    lease.outcome.result = result;
    lease.outcome.reason = reason;
    lease.outcome.error = error;
    lease.outcome.step = result == AttemptResult::failed && lease.steps > 0 ? lease.steps : lease.steps - 1;
  }
  // Worker and trainers are killed: a new process of the same worker knows nothing of them.
  void die() {
    cut();
    held.clear();
  }

  const std::string& id() const { return greeting_.worker.id; }
  WorkerGreeting& greeting() { return greeting_; }
  // The attempt of the run that it holds, 0 = none.
  int64_t attempt_of(const std::string& run) const {
    for (const auto& [id, lease] : held)
      if (lease.order.run == run && !lease.ended) return id;
    return 0;
  }

  OccupiedDevices occupied;           // what it reports
  std::map<int64_t, Held> held;       // by attempt
  std::vector<WorkerOrder> received;  // in order
  std::vector<int64_t> abandoned;
  std::vector<std::string> receipts;  // kinds
  std::string closed;                 // why the daemon closed the session
  bool draining = false;
  int64_t executions = 0;  // begun so far

 private:
  struct Link final : WorkerLink {
    explicit Link(FakeWorker* w) : worker(w) {}
    void send(WorkerOrder order) override {
      if (worker) worker->take(std::move(order));
    }
    void close(const std::string& why) override {
      if (!worker) return;
      worker->closed = why;
      worker->cut();
    }
    FakeWorker* worker;
  };

  void report(Queue& queue, int64_t attempt, const std::string& kind, const std::string& message = {}) {
    const Held& lease = held.at(attempt);
    AttemptReport report{lease.order.lease, kind, lease.outcome, lease.order.folder + "/trainer.log", -1, message};
    queue.report(link_.get(), report);
  }

  void take(WorkerOrder order) {
    received.push_back(order);
    if (auto* lease = std::get_if<LeaseOrder>(&order)) {
      for (const auto& [id, other] : held)
        if (other.order.run == lease->run && !other.ended)
          throw std::logic_error(lease->run + " is executed twice at once");
      held[lease->lease.attempt_id] = {.order = *lease, .execution = ++executions};
    } else if (auto* welcome = std::get_if<WelcomeOrder>(&order)) {
      for (const StepReceipt& stored : welcome->stored)
        if (auto it = held.find(stored.lease.attempt_id); it != held.end()) it->second.acked = stored.seq;
    } else if (auto* stored = std::get_if<StepReceipt>(&order)) {
      acknowledge(*stored);
    } else if (auto* stop = std::get_if<StopOrder>(&order)) {
      if (auto it = held.find(stop->lease.attempt_id); it != held.end()) it->second.stop_reason = stop->reason;
    } else if (auto* receipt = std::get_if<EventReceipt>(&order)) {
      receipts.push_back(receipt->kind);
      if (receipt->kind == "ended") held.erase(receipt->lease.attempt_id);
    } else if (auto* abandon = std::get_if<AbandonOrder>(&order)) {
      abandoned.push_back(abandon->lease.attempt_id);
      held.erase(abandon->lease.attempt_id);
    } else {
      draining = true;
    }
  }
  void acknowledge(const StepReceipt& stored) {
    if (auto it = held.find(stored.lease.attempt_id); it != held.end())
      it->second.acked = std::max(it->second.acked, stored.seq);
  }

  WorkerGreeting greeting_;
  std::shared_ptr<Link> link_;
};

}  // namespace assay
