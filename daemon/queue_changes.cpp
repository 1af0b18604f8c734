// Queue: what people ask for.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "daemon/queue.h"

namespace assay {
namespace {

using Json = nlohmann::json;

// How the answer names a run: by its name alone where all runs are of one experiment.
std::string label_of(const ListedRun& run, bool several_experiments) {
  return several_experiments ? fmt::format("{}/{}/{}", run.experiment, run.tag, run.run.name) : run.run.name;
}

bool several_experiments(const std::vector<const ListedRun*>& runs) {
  return std::any_of(runs.begin(), runs.end(),
                     [&](const ListedRun* run) { return run->run.experiment_id != runs.front()->run.experiment_id; });
}

// Before anything is changed: what has been done must be tellable.
Status check_answer_fits(const std::vector<const ListedRun*>& runs, bool several) {
  size_t bytes = 0;
  for (const ListedRun* run : runs) bytes += label_of(*run, several).size() + 8;
  if (bytes <= limits::change_answer_bytes) return {};
  return Error{ErrorCode::resource_exhausted,
               fmt::format("these are {} runs, more than one answer can name; change them tag by tag", runs.size())};
}

bool contains(const std::vector<RunState>& states, RunState state) {
  return std::find(states.begin(), states.end(), state) != states.end();
}

}  // namespace

RunFilter filter_of(const Selection& selection) {
  RunFilter filter;
  filter.names = selection.names;
  filter.ids = selection.ids;
  filter.tag = selection.tag;
  filter.states = selection.states;
  return filter;
}

// The time now; with a number behind where the experiment was enqueued in this second already.
Result<std::string> Queue::unused_tag(const ExperimentSpec& spec) {
  const std::string time = format_tag(clock_.unix_ms());
  for (int n = 1;; ++n) {
    std::string tag = n == 1 ? time : fmt::format("{}_{}", time, n);
    ASSAY_ASSIGN(const SpecComparison there, runs_.compare_experiment(spec, tag));
    if (there.experiment_id == 0) return tag;
  }
}

Result<EnqueueResult> Queue::enqueue(const ExperimentSpec& spec, std::string tag, const std::string& request_id) {
  if (tag.empty()) {
    ASSAY_ASSIGN(tag, unused_tag(spec));
  }
  ASSAY_ASSIGN(EnqueueResult result, runs_.insert_experiment(spec, tag, request_id));
  policies_.erase(result.experiment_id);
  assign_ = true;
  events_staged_ = true;
  return result;
}

// --- requests answered before --------------------------------------------------------------------------------------

Result<std::optional<ChangeAnswer>> Queue::answered(const std::string& request_id, const std::string& method) {
  if (request_id.empty()) return std::optional<ChangeAnswer>();
  if (const auto it = staged_requests_.find(request_id); it != staged_requests_.end()) {
    if (it->second.first == method) return std::optional(it->second.second);
    return Error{ErrorCode::invalid_argument,
                 fmt::format("request id {} was used for {}", request_id, it->second.first)};
  }
  ASSAY_ASSIGN(const auto stored, runs_.find_request(request_id, method));
  if (!stored) return std::optional<ChangeAnswer>();
  const Json json = Json::parse(*stored, nullptr, false);
  if (!json.is_object())
    return Error{ErrorCode::data_loss, fmt::format("the stored answer of request {} is damaged", request_id)};
  ChangeAnswer answer;
  answer.changed = json.value("changed", std::vector<std::string>{});
  answer.unchanged = json.value("unchanged", std::vector<std::string>{});
  return std::optional(std::move(answer));
}

void Queue::remember(const std::string& request_id, const std::string& method, const ChangeAnswer& answer,
                     ChangeList& list) {
  if (request_id.empty()) return;
  staged_requests_[request_id] = {method, answer};
  const Json json = {{"changed", answer.changed}, {"unchanged", answer.unchanged}};
  list.push_back(RequestResult{request_id, method, json.dump(-1, ' ', false, Json::error_handler_t::replace)});
}

// --- changes of runs -----------------------------------------------------------------------------------------------

// One group: all of the selected runs or none. Runs named one by one are reported when they cannot change; of a wider
// selection (a tag, everything) only the eligible ones are meant.
Result<ChangeAnswer> Queue::change_runs(const Selection& selection, const Eligible& eligible, RunEvent event,
                                        const std::string& method, const std::string& request_id) {
  ASSAY_ASSIGN(auto before, answered(request_id, method));
  if (before) return *std::move(before);
  ASSAY_ASSIGN(const auto listed, runs_.list_runs(filter_of(selection)));
  const bool one_by_one = !selection.names.empty() || !selection.ids.empty();
  std::vector<const ListedRun*> meant;
  for (const ListedRun& run : listed)
    if (one_by_one || contains(eligible, subject_of(run).life.state)) meant.push_back(&run);
  const bool several = several_experiments(meant);
  ASSAY_TRY(check_answer_fits(meant, several));
  ChangeAnswer answer;
  ChangeList list;
  for (const ListedRun* run : meant) {
    Subject subject = subject_of(*run);
    event.lease_epoch = subject.life.attempt ? subject.life.attempt->lease_epoch : 0;
    if (Status advanced = advance(subject, event, list); advanced.ok()) {
      answer.changed.push_back(label_of(*run, several));
    } else if (broken_) {
      return *broken_;
    } else {
      answer.unchanged.push_back(fmt::format("{}: {}", label_of(*run, several), advanced.error().message));
    }
  }
  remember(request_id, method, answer, list);
  stage(std::move(list));
  return answer;
}

Result<ChangeAnswer> Queue::cancel(const Selection& selection, bool all, const std::string& request_id) {
  if (selection.everything() && !all)
    return Error{ErrorCode::invalid_argument, "nothing to cancel: name runs, give a tag, or ask for all of them"};
  RunEvent event{.kind = RunEventKind::cancel_requested, .cause = "assay cancel"};
  return change_runs(selection, live_states(), event, "cancel", request_id);
}

Result<ChangeAnswer> Queue::retry(const Selection& selection, bool failed, const std::string& request_id) {
  if (selection.everything() && !failed)
    return Error{ErrorCode::invalid_argument, "nothing to retry: name runs, give a tag, or ask for all failed ones"};
  Eligible eligible = {RunState::failed};
  if (!failed) eligible.push_back(RunState::cancelled);
  Selection wanted = selection;
  if (failed && wanted.names.empty()) wanted.states = eligible;
  RunEvent event{.kind = RunEventKind::retry_requested, .cause = "assay retry"};
  return change_runs(wanted, eligible, event, "retry", request_id);
}

Result<ChangeAnswer> Queue::hold(const Selection& selection, const std::string& request_id) {
  if (selection.everything()) return set_held(true, "hold", request_id);
  RunEvent event{.kind = RunEventKind::hold, .cause = "assay hold"};
  return change_runs(selection, {RunState::queued, RunState::retry_wait}, event, "hold", request_id);
}

Result<ChangeAnswer> Queue::release(const Selection& selection, const std::string& request_id) {
  if (selection.everything()) return set_held(false, "release", request_id);
  RunEvent event{.kind = RunEventKind::release, .cause = "assay release"};
  return change_runs(selection, {RunState::held}, event, "release", request_id);
}

// The whole queue: runs that run go on, nothing new starts.
Result<ChangeAnswer> Queue::set_held(bool held, const std::string& method, const std::string& request_id) {
  ASSAY_ASSIGN(auto before, answered(request_id, method));
  if (before) return *std::move(before);
  ChangeAnswer answer;
  ChangeList list;
  if (held == held_) {
    answer.unchanged.push_back(held ? "the queue: it is held already" : "the queue: it is not held");
  } else {
    held_ = held;
    assign_again_ = true;  // the store offers no claims until the release is committed
    answer.changed.push_back("the queue");
    list.push_back(RunStore::hold_queue(held, "assay " + method));
    events_staged_ = true;
  }
  remember(request_id, method, answer, list);
  stage(std::move(list));
  return answer;
}

}  // namespace assay
