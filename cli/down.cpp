// `assay down`: stop the daemon and wait until its process is gone.
#include <fmt/core.h>

#include "base/home.h"
#include "base/limits.h"
#include "base/process.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace assay {
namespace {

// Stopping workers: a checkpoint may be under way, then SIGTERM and the grace period; the daemon itself ends at once.
constexpr int64_t stop_deadline_ms = 6 * limits::stop_grace_ms;
constexpr int64_t poll_ms = 50;
constexpr int64_t info_deadline_ms = 10'000;

struct Options {
  bool keep_running = false;
};

Result<ExitCode> nothing_to_stop(Context& context) {
  if (context.json)
    print_json(context, {{"stopped", false}, {"home", context.home}});
  else
    context.console.out << "no daemon is running for " << context.home << "\n";
  return ExitCode::ok;
}

Result<ExitCode> run_down(Context& context, const Options& options) {
  auto client = Client::connect(context.home);
  if (!client.ok()) {
    if (client.error().code == ErrorCode::unavailable) return nothing_to_stop(context);
    return client.error();
  }
  auto info = client->call(&Rpc::Info, {}, info_deadline_ms);
  if (!info.ok()) {
    // A dead socket file is a daemon that was killed; one that is alive and silent is an error worth showing.
    if (info.error().message.starts_with("no daemon is running")) return nothing_to_stop(context);
    return info.error();
  }
  const pid_t pid = static_cast<pid_t>(info->pid());
  ASSAY_ASSIGN(const ProcessIdentity daemon, identify_process(pid));
  v1::ShutdownRequest request;
  request.set_stop_workers(!options.keep_running);
  ASSAY_TRY(client->call(&Rpc::Shutdown, request));
  const int64_t deadline = context.clock.monotonic_ms() + stop_deadline_ms;
  while (is_alive(daemon)) {
    if (context.clock.monotonic_ms() >= deadline)
      return Error{ErrorCode::unavailable,
                   fmt::format("the daemon (pid {}) is still stopping after {} s; its log is {}", pid,
                               stop_deadline_ms / 1000, daemon_log_path(context.home))};
    context.pause(poll_ms);
  }
  if (context.json)
    print_json(context,
               {{"stopped", true}, {"home", context.home}, {"pid", pid}, {"workers_stopped", !options.keep_running}});
  else
    context.console.out << fmt::format("daemon stopped (pid {}){}\n", pid,
                                       options.keep_running ? "; its workers and their runs go on" : "");
  return ExitCode::ok;
}

}  // namespace

void add_down(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "down", "Stop the daemon, its workers and their runs",
                            "  assay down\n"
                            "  assay down --keep-running && assay up    # new daemon, the runs never stop");
  auto options = std::make_shared<Options>();
  verb->add_flag("--keep-running", options->keep_running,
                 "Leave workers and their runs alone; the next daemon takes them over");
  on_chosen(verb, context, options, run_down);
}

}  // namespace assay
