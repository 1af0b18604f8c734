// Records what a worker sends to its daemon.
#pragma once

#include <map>
#include <vector>

#include "worker/uplink.h"

namespace assay {

class FakeUplink final : public Uplink {
 public:
  void send(const Heartbeat& heartbeat) override { heartbeats.push_back(heartbeat); }
  void send(const MetricBatch& batch) override {
    batches.push_back(batch);
    order.push_back("metrics");
  }
  void send(const AttemptEvent& event) override {
    events.push_back(event);
    order.push_back(std::string(to_string(event.kind)));
  }

  std::vector<int64_t> steps() const {
    std::vector<int64_t> all;
    for (const MetricBatch& batch : batches)
      for (const StepMetrics& step : batch.steps) all.push_back(step.step);
    return all;
  }
  const AttemptEvent* last(AttemptNews kind) const {
    const AttemptEvent* found = nullptr;
    for (const AttemptEvent& event : events)
      if (event.kind == kind) found = &event;
    return found;
  }
  void clear() {
    heartbeats.clear();
    batches.clear();
    events.clear();
    order.clear();
  }

  std::vector<Heartbeat> heartbeats;
  std::vector<MetricBatch> batches;
  std::vector<AttemptEvent> events;
  std::vector<std::string> order;  // kinds of everything but heartbeats, as sent
};

}  // namespace assay
