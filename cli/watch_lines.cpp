#include "cli/watch_lines.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/clock.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/table.h"

namespace assay {
namespace {

std::string full_name(const v1::Event& event) {
  return event.experiment() + "/" + event.tag() + "/" + event.run();
}

// Of an attempt, or of the run with it.
bool is_end(const v1::Event& event) {
  return event.attempt() > 0 && (event.to_state() == to_string(AttemptState::ended) || has_ended(event.to_state()));
}

}  // namespace

WatchLines::WatchLines(Context& context, std::string tag) : context_(context), tag_(std::move(tag)) {}

int64_t WatchLines::mark_of(const v1::Run& run) {
  if (!run.has_latest() || run.latest().steps_observed() == 0) return -1;
  return run.latest().n() * 100 + static_cast<int64_t>(progress(run) * 10 + 1e-9);
}

Status WatchLines::begin(Client& client) {
  v1::ListRunsRequest request;
  request.mutable_selector()->set_tag(tag_);
  for (const RunState state : live_states()) request.mutable_selector()->add_states(std::string(to_string(state)));
  ASSAY_ASSIGN(const v1::ListRunsResponse list, client.list_runs(request));
  last_event_id_ = list.last_event_id();
  read_at_ = context_.clock.unix_ms();
  for (const v1::Run& run : list.runs()) experiments_.see(run.experiment(), run.tag());
  for (const v1::Run& run : list.runs()) {
    told_[full_name(run)] = {run.latest().n(), mark_of(run)};
    print_progress(run, read_at_);
  }
  return {};
}

Status WatchLines::read_events(Client& client) {
  read_at_ = context_.clock.unix_ms();
  return client.events_since(last_event_id_, tag_, [&](const v1::Event& event) {
    last_event_id_ = event.id();
    events_.push_back(event);
  });
}

// The runs of the list, and those whose attempt ended but that are too far down for it.
Result<WatchLines::RunsByName> WatchLines::runs_of(Client& client, const v1::ListRunsResponse& list) const {
  RunsByName runs;
  if (events_.empty()) return runs;
  for (const v1::Run& run : list.runs()) runs.emplace(full_name(run), run);
  v1::ListRunsRequest request;
  for (const v1::Event& event : events_)
    if (is_end(event) && !runs.contains(full_name(event))) request.mutable_selector()->add_names(full_name(event));
  if (request.selector().names().empty()) return runs;
  ASSAY_ASSIGN(const v1::ListRunsResponse more, client.list_runs(request));
  for (const v1::Run& run : more.runs()) runs.emplace(full_name(run), run);
  return runs;
}

Status WatchLines::tell(Client& client, const v1::ListRunsResponse& list) {
  ASSAY_ASSIGN(const RunsByName runs, runs_of(client, list));
  for (const v1::Run& run : list.runs()) experiments_.see(run.experiment(), run.tag());
  int64_t at = read_at_;
  for (const v1::Event& event : events_) {
    const auto run = runs.find(full_name(event));
    if (run != runs.end() && is_end(event) && run->second.latest().n() == event.attempt())
      tell_progress(run->second, event.at());
    if (event.attempt() > 0) {
      int64_t& attempt = told_[full_name(event)].attempt;
      attempt = std::max(attempt, event.attempt());
    }
    print_event(event);
    at = std::max(at, event.at());
  }
  events_.clear();
  for (const v1::Run& run : list.runs()) tell_progress(run, at);
  return {};
}

void WatchLines::tell_progress(const v1::Run& run, int64_t at) {
  const int64_t mark = mark_of(run);
  Told& told = told_[full_name(run)];
  if (mark < 0 || mark == told.mark || run.latest().n() > told.attempt) return;
  told.mark = mark;
  print_progress(run, at);
}

void WatchLines::print_event(const v1::Event& event) {
  if (context_.json) {
    Json line = {{"type", "event"}};
    line.update(to_json(event));
    print_json(context_, line);
    return;
  }
  const bool colour = context_.console.colour;
  std::string line = format_local_time(event.at()) + "  ";
  line += !event.run().empty()          ? printable(experiments_.run_name(event.experiment(), event.tag(), event.run()))
          : !event.experiment().empty() ? printable(event.experiment())
                                        : "queue";
  if (event.attempt() > 0) line += fmt::format(" (attempt {})", event.attempt());
  line += "  " + printable(event.kind());
  if (!event.to_state().empty() && event.from_state() != event.to_state())
    line += fmt::format("  {}{}", event.from_state().empty() ? "" : printable(event.from_state()) + " -> ",
                        paint(printable(event.to_state()), state_colour(event.to_state()), colour));
  if (!event.cause().empty()) line += "  " + first_line(event.cause());
  context_.console.out << line << "\n";
}

void WatchLines::print_progress(const v1::Run& run, int64_t at) {
  if (context_.json) {
    Json line = {{"type", "progress"}};
    line.update(to_json(run));
    print_json(context_, line);
    return;
  }
  const bool observed = run.has_latest() && run.latest().steps_observed() > 0;
  const std::string name = experiments_.run_name(run.experiment(), run.tag(), run.name());
  std::string line = fmt::format("{}  {}  ", format_local_time(at), printable(name));
  if (observed)
    line += fmt::format("step {}/{}  loss {}  {} tok/sec", run.latest().last_step() + 1, run.total_steps(),
                        loss_cell(run), rate_cell(run));
  else
    line += run.state();
  context_.console.out << line << "\n";
}

}  // namespace assay
