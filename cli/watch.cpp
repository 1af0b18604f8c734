// `assay watch`: the queue as it changes. On a terminal a screen that refreshes in place, else one line per change.
#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "cli/change.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/run_rows.h"
#include "cli/screen.h"
#include "cli/verb.h"
#include "cli/watch_lines.h"
#include "cli/watch_view.h"

namespace assay {
namespace {

constexpr int64_t refresh_ms = 500;
// A restart of the daemon takes seconds; after this long without an answer it is down.
constexpr int64_t unreachable_ms = 60'000;
// More than anybody scrolls through, little enough for every refresh. Running ones come first in the list, and how many
// there are of all is told beside it.
constexpr int64_t runs_listed = 2'000;

struct Options {
  std::string tag;
  bool until_done = false;
};

// The list of runs, kept over moments in which the daemon does not answer.
class Source {
 public:
  Source(Context& context, Client client, const Options& options) : context_(context), client_(std::move(client)) {
    request_.mutable_selector()->set_tag(options.tag);
    request_.set_limit(runs_listed);
  }
  // Fails when the daemon has been away for too long, or refuses; a short absence is told by problem().
  Status refresh() {
    auto list = client_.list_runs(request_);
    const int64_t now = context_.clock.monotonic_ms();
    if (list.ok()) {
      list_ = *std::move(list);
      problem_.clear();
      answered_at_ = now;
      return {};
    }
    if (list.error().code != ErrorCode::unavailable || answered_at_ < 0 || now - answered_at_ > unreachable_ms)
      return list.error();
    problem_ = list.error().message;
    return {};
  }
  Client& client() { return client_; }
  const v1::ListRunsResponse& list() const { return list_; }
  const std::string& problem() const { return problem_; }

 private:
  Context& context_;
  Client client_;
  v1::ListRunsRequest request_;
  v1::ListRunsResponse list_;
  std::string problem_;
  int64_t answered_at_ = -1;
};

int scrolled(int first_row, Key key, int runs, int height) {
  const int page = std::max(1, height - 8);
  switch (key) {
    case Key::up:
      first_row -= 1;
      break;
    case Key::down:
      first_row += 1;
      break;
    case Key::page_up:
      first_row -= page;
      break;
    case Key::page_down:
      first_row += page;
      break;
    case Key::home:
      first_row = 0;
      break;
    case Key::end:
      first_row = runs;
      break;
    default:
      break;
  }
  return std::clamp(first_row, 0, last_first_row(runs, height));
}

// Whether there is something to wait for. Without --until-done there always is.
Result<bool> goes_on(const Source& source, const Options& options) {
  if (!options.until_done || !source.problem().empty()) return true;
  return any_live(source.list());
}

Result<ExitCode> watch_screen(Context& context, Source& source, const Options& options) {
  WatchView view{.colour = context.console.colour, .home = context.home};
  ASSAY_TRY(source.refresh());
  {
    Screen screen(context.console.out);
    int64_t refreshed_at = context.clock.monotonic_ms();
    while (true) {
      ASSAY_ASSIGN(const bool live, goes_on(source, options));
      if (!live) break;
      const ScreenSize size = screen.size();
      view.width = size.width;
      view.height = size.height;
      view.now = context.clock.unix_ms();
      view.problem = source.problem();
      view.first_row = scrolled(view.first_row, Key::none, source.list().runs_size(), size.height);
      screen.show(watch_lines(source.list(), view));
      const int64_t wait = std::max<int64_t>(0, refreshed_at + refresh_ms - context.clock.monotonic_ms());
      const Key key = screen.next_key(wait);
      if (key == Key::leave) break;
      view.first_row = scrolled(view.first_row, key, source.list().runs_size(), size.height);
      if (context.clock.monotonic_ms() < refreshed_at + refresh_ms) continue;
      ASSAY_TRY(source.refresh());
      refreshed_at = context.clock.monotonic_ms();
    }
  }
  context.console.out << counts_line(source.list(), context.console.colour) << "\n";
  return ExitCode::ok;
}

Result<ExitCode> watch_plain(Context& context, Source& source, const Options& options) {
  WatchLines lines(context, options.tag);
  ASSAY_TRY(lines.begin(source.client()));
  ASSAY_TRY(source.refresh());
  bool told = false, first = true;
  while (context.console.out) {
    if (!std::exchange(first, false)) {
      context.pause(refresh_ms);
      // Events first and the list after them: it then shows no less than they say.
      const Status events = lines.read_events(source.client());
      if (!events.ok() && events.error().code != ErrorCode::unavailable) return events.error();
      ASSAY_TRY(source.refresh());
    }
    if (source.problem().empty()) {
      if (Status status = lines.tell(source.client(), source.list());
          !status.ok() && status.error().code != ErrorCode::unavailable)
        return status.error();
      ASSAY_ASSIGN(const bool live, goes_on(source, options));
      if (!live) {
        // Its runs ended after the events were read: their ends are told as well.
        ASSAY_TRY(lines.read_events(source.client()));
        ASSAY_TRY(lines.tell(source.client(), source.list()));
        break;
      }
    } else if (!told) {
      remark(context, source.problem() + "; waiting for it");
    }
    told = !source.problem().empty();
    context.console.out.flush();
  }
  if (!context.json) context.console.out << counts_line(source.list(), context.console.colour) << "\n";
  return ExitCode::ok;
}

Result<ExitCode> run_watch(Context& context, const Options& options) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  Source source(context, std::move(client), options);
  return context.console.terminal && !context.json ? watch_screen(context, source, options)
                                                   : watch_plain(context, source, options);
}

}  // namespace

void add_watch(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "watch", "Watch the queue: a live screen, or one line per change when not on a terminal",
               "  assay watch                        # q leaves\n"
               "  assay watch --tag monday --until-done\n"
               "  assay watch | tee queue.log\n"
               "  assay watch --json | jq -c 'select(.type == \"event\")'");
  auto options = std::make_shared<Options>();
  add_tag(verb, options->tag, "Only this experiment");
  verb->add_flag("--until-done", options->until_done, "End when nothing is live any more");
  on_chosen(verb, context, options, run_watch);
}

}  // namespace assay
