// assayd: flags and signals; see daemon/daemon.h.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>

#include "base/command_line.h"
#include "base/home.h"
#include "base/log.h"
#include "base/process.h"
#include "daemon/daemon.h"

namespace {

using namespace assay;

// Blocked in every thread, taken by the main thread in sigwait.
sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

int fail(const Error& error) {
  log::fatal(error.message);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The daemon of Assay: keeps the queue and serves it on a Unix socket in its home folder.", "assayd");
  std::string home, log_file;
  bool allow_faults = false, no_worker = false;
  app.add_option("--home", home, home_help);
  app.add_option("--log-file", log_file, "write the log here instead of standard error");
  app.add_flag("--allow-fault-injection", allow_faults, "accept runs that ask to crash, stall or fail on purpose");
  app.add_flag("--no-worker", no_worker, "start no local worker");
  if (const auto status = read_arguments(app, argc, argv, 1)) return *status;

  const sigset_t signals = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  if (const Status started = log::start("assayd", log_file); !started.ok()) return fail(started.error());
  const auto folder = home_folder(home);
  if (!folder.ok()) return fail(folder.error());

  DaemonOptions options;
  options.home = *folder;
  options.allow_faults = allow_faults;
  if (!no_worker) options.worker_program = program_folder() + "/assay-worker";
  options.on_shutdown = [] { ::kill(::getpid(), SIGTERM); };
  const SystemClock clock;
  auto daemon = Daemon::start(std::move(options), clock);
  if (!daemon.ok()) return fail(daemon.error());
  int signal = 0;
  ::sigwait(&signals, &signal);
  (*daemon)->stop();
  return 0;
}
