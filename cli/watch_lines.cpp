#include "cli/watch_lines.h"

#include <fmt/core.h>

#include "base/clock.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/table.h"

namespace assay {

WatchLines::WatchLines(Context& context, std::string tag) : context_(context), tag_(std::move(tag)) {}

int64_t WatchLines::mark_of(const v1::Run& run) {
  if (!run.has_latest() || run.latest().steps_observed() == 0) return -1;
  return run.latest().n() * 100 + static_cast<int64_t>(progress(run) * 10 + 1e-9);
}

Status WatchLines::begin(Client& client, const v1::ListRunsResponse& list) {
  ASSAY_TRY(client.events_since(0, [&](const v1::Event& event) { last_event_id_ = event.id(); }));
  for (const v1::Run& run : list.runs()) {
    told_[run.id()] = mark_of(run);
    if (is_live(run.state())) print_progress(run);
  }
  return {};
}

Status WatchLines::more(Client& client, const v1::ListRunsResponse& list) {
  ASSAY_TRY(client.events_since(last_event_id_, [&](const v1::Event& event) {
    last_event_id_ = event.id();
    if (tag_.empty() || event.tag() == tag_) print_event(event);
  }));
  for (const v1::Run& run : list.runs()) {
    const int64_t mark = mark_of(run);
    const auto [told, first] = told_.try_emplace(run.id(), -1);
    if (mark == told->second) continue;
    told->second = mark;
    if (mark >= 0) print_progress(run);
  }
  return {};
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
  line += !event.run().empty()          ? printable(event.run())
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

void WatchLines::print_progress(const v1::Run& run) {
  if (context_.json) {
    Json line = {{"type", "progress"}};
    line.update(to_json(run));
    print_json(context_, line);
    return;
  }
  const bool observed = run.has_latest() && run.latest().steps_observed() > 0;
  std::string line = fmt::format("{}  {}  ", format_local_time(context_.clock.unix_ms()), printable(run.name()));
  if (observed)
    line += fmt::format("step {}/{}  loss {}  {} tok/sec", run.latest().last_step() + 1, run.total_steps(),
                        loss_cell(run), rate_cell(run));
  else
    line += run.state();
  context_.console.out << line << "\n";
}

}  // namespace assay
