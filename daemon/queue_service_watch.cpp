// QueueService::Watch: the durable feed, read from the events table and never from memory, so that a client which comes
// back with the last id it saw misses nothing.
#include <fmt/format.h>

#include <unordered_map>

#include "base/limits.h"
#include "base/utf8.h"
#include "daemon/grpc_status.h"
#include "daemon/queue_service.h"

namespace assay {
namespace {

constexpr int64_t events_per_read = 500;
// gRPC's synchronous API tells a waiting handler nothing about a client that left; it is asked this often, and only
// while somebody follows.
constexpr std::chrono::milliseconds look_again(1'000);
constexpr size_t names_kept = 10'000;

// Adds the words of an event that the table has as numbers.
class EventNames {
 public:
  explicit EventNames(RunStore& runs) : runs_(runs) {}

  Status fill(v1::Event& out, const EventRow& row) {
    out.set_id(row.id);
    out.set_at(row.at);
    out.set_kind(std::string(to_string(row.kind)));
    out.set_from_state(row.from_state);
    out.set_to_state(row.to_state);
    out.set_cause(to_utf8(row.cause));
    if (row.experiment_id != 0) ASSAY_TRY(name_experiment(out, row.experiment_id));
    if (row.run_id != 0) ASSAY_TRY(name_run(out, row.run_id));
    if (row.attempt_id != 0) ASSAY_TRY(number_attempt(out, row.attempt_id));
    return {};
  }

 private:
  Status name_experiment(v1::Event& out, int64_t id) {
    auto it = experiments_.find(id);
    if (it == experiments_.end()) {
      ASSAY_ASSIGN(const ExperimentRow row, runs_.get_experiment(id));
      it = remember(experiments_, id, std::pair(row.name, row.tag));
    }
    out.set_experiment(it->second.first);
    out.set_tag(it->second.second);
    return {};
  }
  Status name_run(v1::Event& out, int64_t id) {
    auto it = names_.find(id);
    if (it == names_.end()) {
      ASSAY_ASSIGN(const ListedRun listed, runs_.get_run_by_id(id));
      it = remember(names_, id, listed.run.name);
    }
    out.set_run(it->second);
    return {};
  }
  Status number_attempt(v1::Event& out, int64_t id) {
    auto it = numbers_.find(id);
    if (it == numbers_.end()) {
      ASSAY_ASSIGN(const AttemptContext context, runs_.get_attempt(id));
      it = remember(numbers_, id, context.attempt.n);
    }
    out.set_attempt(it->second);
    return {};
  }
  template <class Map, class Value>
  static typename Map::iterator remember(Map& map, int64_t id, Value value) {
    if (map.size() >= names_kept) map.clear();
    return map.emplace(id, std::move(value)).first;
  }

  RunStore& runs_;
  std::unordered_map<int64_t, std::pair<std::string, std::string>> experiments_;
  std::unordered_map<int64_t, std::string> names_;
  std::unordered_map<int64_t, int64_t> numbers_;
};

}  // namespace

Status QueueService::stream_events(Call* call, const v1::WatchRequest& request, grpc::ServerWriter<v1::Event>* out) {
  EventNames names(context_.runs);
  int64_t only_experiment = 0;  // 0 = all
  if (!request.tag().empty()) {
    ASSAY_ASSIGN(const ExperimentRow experiment, context_.runs.find_experiment(request.tag()));
    only_experiment = experiment.id;
  }
  int64_t last = request.from_event_id();
  while (!call->IsCancelled()) {
    const int64_t version = context_.feed.version();
    ASSAY_ASSIGN(const auto events, context_.runs.events_after(last, events_per_read));
    for (const EventRow& row : events) {
      last = row.id;
      if (only_experiment != 0 && row.experiment_id != only_experiment) continue;
      v1::Event event;
      ASSAY_TRY(names.fill(event, row));
      if (!out->Write(event)) return {};  // the client left
    }
    if (static_cast<int64_t>(events.size()) == events_per_read) continue;
    if (!request.follow()) return {};
    if (!context_.feed.wait(version, look_again)) return Error{ErrorCode::unavailable, "the daemon is stopping"};
  }
  return {};
}

grpc::Status QueueService::Watch(Call* call, const v1::WatchRequest* request, grpc::ServerWriter<v1::Event>* out) {
  if (++watchers_ > limits::watch_streams) {
    --watchers_;
    return to_grpc(Error{ErrorCode::resource_exhausted,
                         fmt::format("{} clients follow the queue already; close one", limits::watch_streams)});
  }
  const Status streamed = stream_events(call, *request, out);
  --watchers_;
  return to_grpc(streamed);
}

}  // namespace assay
