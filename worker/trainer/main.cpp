// assay-trainer: one rank of one run. Wiring only; see worker/trainer/step_loop.h.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "base/command_line.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "spec/run_config_toml.h"
#include "worker/attempt/exit_code.h"
#include "worker/trainer/step_loop.h"

namespace {

using namespace assay;

TrainerRequests requests;
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int signal) {
  if (signal == SIGUSR1)
    requests.checkpoint = true;
  else
    requests.stop = true;
}

void install_signals(bool leaves_files) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a write to the journal must not fail because a signal came
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) ::sigaction(signal, &action, nullptr);
  // A run that leaves more than its output does not end because nobody reads that any longer.
  if (leaves_files) std::signal(SIGPIPE, SIG_IGN);
}

// Injected faults that end or block the process the way real ones do.
void die(FaultKind kind) {
  std::fflush(nullptr);
  if (kind == FaultKind::crash) {
    std::signal(SIGSEGV, SIG_DFL);
    std::raise(SIGSEGV);
  }
  if (kind == FaultKind::exit_code) ::_exit(70);  // outside the contract of exit_code.h
  while (true) ::pause();                         // stall: SIGTERM is noticed by nobody
}

AttemptOutcome config_invalid(std::string error) {
  AttemptOutcome outcome;
  outcome.result = AttemptResult::failed;
  outcome.reason = FailureReason::config_invalid;
  outcome.error = std::move(error);
  return outcome;
}

AttemptOutcome train(const std::string& config_path, StepLoopOptions options) {
  const auto text = read_file(config_path, limits::spec_bytes);
  if (!text.ok()) return config_invalid(text.error().message);
  RunConfigResult parsed = parse_run_config(*text, config_path);
  if (!parsed.errors.empty()) {
    std::string all;
    for (const SpecError& error : parsed.errors) all += (all.empty() ? "" : "\n") + error.to_string();
    return config_invalid(all);
  }
  options.config = parsed.config;
  const StepLoopHooks hooks{
      .create = Trainer::create, .print = [](const std::string& line) { log::print_line(stdout, line); }, .die = die};
  return run_steps(options, requests, SystemClock(), hooks);
}

// "run.toml:3:41: " of the setting that the failure is about, where one is known. Config errors have theirs.
std::string place_of(const AttemptOutcome& outcome, const std::string& config_path) {
  const auto text = read_file(config_path, limits::spec_bytes);
  if (outcome.reason == FailureReason::config_invalid || !text.ok()) return {};
  const std::string about_data = outcome.reason == FailureReason::data_error ? " data.path" : "";
  const std::string place = place_named_in(outcome.error + about_data, *text, config_path);
  return place.empty() ? place : place + ": ";
}

// Prints the outcome and makes result.json this program's last act.
int end(const AttemptOutcome& outcome, const std::string& config, const std::optional<AttemptFolder>& folder) {
  if (outcome.result == AttemptResult::failed)
    // Begins with file:line:col, as compilers' messages do, so that editors find the place.
    log::print_line(stderr, fmt::format("{}{}\nerror: the run failed: {}", place_of(outcome, config), outcome.error,
                                        to_string(outcome.reason)));
  else
    log::print_line(stdout, to_string(outcome.result));
  std::fflush(nullptr);
  if (folder) {
    AttemptOutcome written = outcome;
    written.exit_code = exit_code_of(outcome);
    if (const Status status = write_result(*folder, written); !status.ok()) {
      log::print_line(stderr, "error: " + status.error().message);
      return exit_code_of({.result = AttemptResult::failed, .reason = FailureReason::internal});
    }
  }
  return exit_code_of(outcome);
}

constexpr const char* signals_help =
    "SIGTERM or SIGINT: finish the step, save a checkpoint (with --checkpoints), end as cancelled.\n"
    "SIGUSR1: save a checkpoint after the step.";

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains one run of Assay.", "assay-trainer");
  app.footer(fmt::format("Exit codes: {}; bad usage is config_invalid.\n{}", exit_codes_text(), signals_help));
  std::string config, folder;
  StepLoopOptions options;
  bool no_resume = false;
  app.add_option("--config", config, "the run's config (TOML)")->required();
  app.add_option("--folder", folder, "attempt folder: journal.bin, progress.json and result.json are written there");
  app.add_option("--attempt", options.attempt, "number of the attempt within the run, from 1");
  app.add_option("--checkpoints", options.trainer.checkpoint_folder,
                 "folder of checkpoints; without it none are saved");
  app.add_option("--attempt-key", options.trainer.owner.attempt,
                 "name of this attempt, kept in its checkpoints; with it only those of the --earlier-key attempts are "
                 "resumed");
  app.add_option("--earlier-key", options.trainer.owner.earlier, "an earlier attempt of the run (repeatable)");
  app.add_flag("--no-resume", no_resume, "start from step 0 even if there is a checkpoint");
  app.add_flag("--allow-faults", options.allow_faults, "obey the config's fault hook");
  const int usage = exit_code_of({.result = AttemptResult::failed, .reason = FailureReason::config_invalid});
  if (const auto status = read_arguments(app, argc, argv, usage)) return *status;
  static_cast<void>(log::start("assay-trainer"));  // stderr can always be had
  options.trainer.resume = !no_resume;
  if (!folder.empty()) {
    if (const Status made = make_folders(folder); !made.ok())
      return end(config_invalid(made.error().message), config, {});
    options.folder = AttemptFolder{folder};
    ::unlink(options.folder->result().c_str());  // of an earlier trainer in this folder: it is not how this one ends
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  install_signals(options.folder || !options.trainer.checkpoint_folder.empty());
  return end(train(config, options), config, options.folder);
}
