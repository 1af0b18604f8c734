#include "daemon/change_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/limits.h"

namespace assay {
namespace {

using Json = nlohmann::json;

// What a verb does to runs.
struct Rule {
  RunEventKind event = RunEventKind::cancel_requested;
  std::vector<RunState> eligible;   // of a wider selection only these are meant
  const char* nothing_named = "";   // why it is refused when nothing is named and `all` is not said; "" = it is not
  std::optional<bool> holds_queue;  // with nothing named the whole queue is meant: it is held, or released
};

Rule rule_of(RunVerb verb, bool all) {
  switch (verb) {
    case RunVerb::cancel:
      return {RunEventKind::cancel_requested, live_states(),
              "nothing to cancel: name runs, give a tag, or ask for all of them", std::nullopt};
    case RunVerb::retry:
      return {RunEventKind::retry_requested,
              all ? std::vector{RunState::failed} : std::vector{RunState::failed, RunState::cancelled},
              "nothing to retry: name runs, give a tag, or ask for all failed ones", std::nullopt};
    case RunVerb::hold:
      return {RunEventKind::hold, {RunState::queued, RunState::retry_wait}, "", true};
    case RunVerb::release:
      return {RunEventKind::release, {RunState::held}, "", false};
  }
  return {};
}

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

std::string cause_of(RunVerb verb) {
  return fmt::format("assay {}", to_string(verb));
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

// --- enqueue -----------------------------------------------------------------------------------------------------

// The time now; with a number behind where the experiment was enqueued in this second already.
Result<std::string> ChangeRequests::unused_tag(const ExperimentSpec& spec) {
  const std::string time = format_tag(clock_.unix_ms());
  for (int n = 1;; ++n) {
    std::string tag = n == 1 ? time : fmt::format("{}_{}", time, n);
    ASSAY_ASSIGN(const SpecComparison there, runs_.compare_experiment(spec, tag));
    if (there.experiment_id == 0) return tag;
  }
}

Result<EnqueueResult> ChangeRequests::enqueue(const ExperimentSpec& spec, std::string tag,
                                              const std::string& request_id) {
  if (tag.empty()) {
    ASSAY_ASSIGN(tag, unused_tag(spec));
  }
  ASSAY_ASSIGN(EnqueueResult result, runs_.insert_experiment(spec, tag, request_id));
  transitions_.policy_changed(result.experiment_id);
  assigner_.look();
  commit_.written_apart();
  return result;
}

// --- requests answered before --------------------------------------------------------------------------------------

Result<std::optional<ChangeAnswer>> ChangeRequests::answered(const std::string& request_id, RunVerb verb) {
  if (request_id.empty()) return std::optional<ChangeAnswer>();
  if (const auto it = staged_answers_.find(request_id); it != staged_answers_.end()) {
    if (it->second.first == verb) return std::optional(it->second.second);
    return Error{ErrorCode::invalid_argument,
                 fmt::format("request id {} was used for {}", request_id, to_string(it->second.first))};
  }
  ASSAY_ASSIGN(const auto stored, runs_.find_request(request_id, std::string(to_string(verb))));
  if (!stored) return std::optional<ChangeAnswer>();
  const Json json = Json::parse(*stored, nullptr, false);
  if (!json.is_object())
    return Error{ErrorCode::data_loss, fmt::format("the stored answer of request {} is damaged", request_id)};
  ChangeAnswer answer;
  answer.changed = json.value("changed", std::vector<std::string>{});
  answer.unchanged = json.value("unchanged", std::vector<std::string>{});
  return std::optional(std::move(answer));
}

void ChangeRequests::remember(const ChangeRequest& request, const ChangeAnswer& answer, ChangeList& group) {
  if (request.request_id.empty()) return;
  staged_answers_[request.request_id] = {request.verb, answer};
  const Json json = {{"changed", answer.changed}, {"unchanged", answer.unchanged}};
  group.push_back(RequestResult{request.request_id, std::string(to_string(request.verb)),
                                json.dump(-1, ' ', false, Json::error_handler_t::replace)});
}

// --- changes -------------------------------------------------------------------------------------------------------

// One group: all of it or nothing.
Result<ChangeAnswer> ChangeRequests::change(const ChangeRequest& request) {
  const Rule rule = rule_of(request.verb, request.all);
  const bool unnamed = request.selection.everything();
  if (unnamed && !request.all && *rule.nothing_named) return Error{ErrorCode::invalid_argument, rule.nothing_named};
  ASSAY_ASSIGN(auto before, answered(request.request_id, request.verb));
  if (before) return *std::move(before);
  ChangeList group;
  ChangeAnswer answer;
  if (unnamed && rule.holds_queue) {
    answer = hold_queue(*rule.holds_queue, request.verb, group);
  } else {
    ASSAY_ASSIGN(answer, change_runs(request, group));
  }
  remember(request, answer, group);
  commit_.stage(std::move(group));
  return answer;
}

// Runs named one by one are reported when they cannot change; of a wider selection (a tag, everything) only the
// eligible ones are meant.
Result<ChangeAnswer> ChangeRequests::change_runs(const ChangeRequest& request, ChangeList& group) {
  const Rule rule = rule_of(request.verb, request.all);
  Selection selection = request.selection;
  if (request.verb == RunVerb::retry && request.all && selection.names.empty()) selection.states = rule.eligible;
  ASSAY_ASSIGN(const auto listed, runs_.list_runs(filter_of(selection)));
  const bool one_by_one = !selection.names.empty() || !selection.ids.empty();
  std::vector<const ListedRun*> meant;
  for (const ListedRun& run : listed)
    if (one_by_one || contains(rule.eligible, transitions_.subject_of(run).life.state)) meant.push_back(&run);
  const bool several = several_experiments(meant);
  ASSAY_TRY(check_answer_fits(meant, several));
  ChangeAnswer answer;
  const RunEvent event{.kind = rule.event, .cause = cause_of(request.verb)};
  for (const ListedRun* run : meant) {
    Subject subject = transitions_.subject_of(*run);
    const Status advanced = transitions_.advance(subject, event, group);
    if (commit_.failure()) return *commit_.failure();
    if (advanced.ok())
      answer.changed.push_back(label_of(*run, several));
    else
      answer.unchanged.push_back(fmt::format("{}: {}", label_of(*run, several), advanced.error().message));
  }
  return answer;
}

// Runs that run go on, nothing new starts.
ChangeAnswer ChangeRequests::hold_queue(bool held, RunVerb verb, ChangeList& group) {
  if (held == assigner_.held())
    return {.unchanged = {held ? "the queue: it is held already" : "the queue: it is not held"}};
  assigner_.hold(held);
  group.push_back(RunStore::hold_queue(held, cause_of(verb)));
  return {.changed = {"the queue"}};
}

}  // namespace assay
