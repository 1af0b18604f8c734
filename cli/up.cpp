// `assay up`: start the daemon in the background and wait until it answers and its worker has connected.
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/home.h"
#include "base/process.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace assay {
namespace {

// A daemon is ready in well under a second, also with 100,000 ended runs; a slow disk may check a large database first.
constexpr int64_t start_deadline_ms = 30'000;
// The worker first asks the driver what devices there are, on a machine with many GPUs for a second or two. Without it
// the queue works all the same, so that `up` says so and ends well.
constexpr int64_t worker_deadline_ms = 10'000;
constexpr int64_t poll_ms = 50;
constexpr int64_t info_deadline_ms = 2'000;

struct Options {
  bool allow_fault_injection = false;
};

std::optional<v1::InfoResponse> running_daemon(const std::string& home) {
  auto client = Client::connect(home);
  if (!client.ok()) return std::nullopt;
  auto info = client->call(&Rpc::Info, {}, info_deadline_ms);
  if (!info.ok()) return std::nullopt;
  return *info;
}

int64_t file_size(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_size : 0;
}

// What the daemon wrote since it was started: its own error line comes last.
std::string last_line_since(const std::string& log, int64_t offset) {
  auto text = read_file(log);
  if (!text.ok() || static_cast<int64_t>(text->size()) <= offset) return {};
  std::string written = text->substr(static_cast<size_t>(offset));
  while (!written.empty() && written.back() == '\n') written.pop_back();
  return printable(written.substr(written.rfind('\n') + 1));
}

void print(Context& context, const v1::InfoResponse& info, bool started) {
  if (context.json) {
    print_json(context, {{"started", started},
                         {"pid", info.pid()},
                         {"home", info.home()},
                         {"version", info.version()},
                         {"workers", info.workers_connected()},
                         {"fault_injection", info.fault_injection()}});
    return;
  }
  context.console.out << fmt::format("daemon {} (pid {}), home {}\n", started ? "started" : "already running",
                                     info.pid(), printable(info.home()));
}

// An error if the daemon's process has ended.
Status check_lives(pid_t pid, const std::string& log, int64_t offset) {
  const auto status = try_wait(pid);
  if (!status) return {};
  const std::string line = last_line_since(log, offset);
  return Error{ErrorCode::failed_precondition,
               fmt::format("the daemon {} at start: {} (log: {})", how_it_ended(*status),
                           line.empty() ? "it wrote nothing" : line, log)};
}

Result<ExitCode> run_up(Context& context, const Options& options) {
  if (auto info = running_daemon(context.home)) {
    if (options.allow_fault_injection && !info->fault_injection())
      return Error{
          ErrorCode::failed_precondition,
          fmt::format("the daemon (pid {}) runs without fault injection; stop it first: assay down", info->pid())};
    print(context, *info, false);
    return ExitCode::ok;
  }
  const std::string program = context.programs + "/assayd";
  if (::access(program.c_str(), X_OK) != 0)
    return Error{ErrorCode::not_found, fmt::format("{} is not there; install assayd beside assay", program)};
  ASSAY_TRY(make_folders(context.home, 0700));
  const std::string log = daemon_log_path(context.home);
  const int64_t offset = file_size(log);
  SpawnOptions spawned{
      .program = program, .arguments = {"--home", context.home}, .output_path = log, .new_session = true};
  if (options.allow_fault_injection) spawned.arguments.push_back("--allow-fault-injection");
  ASSAY_ASSIGN(const pid_t pid, spawn(spawned));
  int64_t deadline = context.clock.monotonic_ms() + start_deadline_ms;
  bool answered = false;
  while (context.clock.monotonic_ms() < deadline) {
    const auto info = running_daemon(context.home);
    if (info && info->workers_connected() > 0) {
      print(context, *info, true);
      return ExitCode::ok;
    }
    if (info && !std::exchange(answered, true)) deadline = context.clock.monotonic_ms() + worker_deadline_ms;
    // Another call may have started the daemon that answers; then ours has ended, as it should.
    if (!info || info->pid() == pid) ASSAY_TRY(check_lives(pid, log, offset));
    context.pause(poll_ms);
  }
  const auto info = running_daemon(context.home);
  if (!info)
    return Error{ErrorCode::unavailable, fmt::format("the daemon (pid {}) does not answer after {} s; its log is {}",
                                                     pid, start_deadline_ms / 1000, log)};
  print(context, *info, true);
  remark(context,
         "no worker has connected yet, and without one nothing runs; its log: " + worker_log_path(context.home));
  return ExitCode::ok;
}

}  // namespace

void add_up(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "up", "Start the daemon in the background",
                            "  assay up\n"
                            "  assay --home /scratch/me/assay up\n"
                            "  assay up --allow-fault-injection    # demonstrations: lets a spec use [fault]");
  auto options = std::make_shared<Options>();
  verb->add_flag("--allow-fault-injection", options->allow_fault_injection,
                 "Accept runs that ask to crash, stall or fail on purpose");
  on_chosen(verb, context, options, run_up);
}

}  // namespace assay
