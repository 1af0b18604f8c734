// assay-worker: the agent of one host. Wiring only; see worker/agent.h and worker/session.h.
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/command_line.h"
#include "base/gpu.h"
#include "base/home.h"
#include "base/log.h"
#include "worker/agent.h"
#include "worker/device_inventory.h"
#include "worker/session.h"

namespace {

using namespace assay;

int stop_fd = -1;  // an eventfd: all a signal handler may do is write to it

void on_stop_signal(int) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_fd, &one, sizeof one);
}

void install_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  std::signal(SIGCHLD, SIG_DFL);  // inherited SIG_IGN would reap our trainers behind our back
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);  // outlives the terminal it was started from
}

// Sleeps until a message, the end of a trainer, a stop signal or the next deadline. True if a stop was asked for.
bool wait(const Agent& agent, const Session& session) {
  std::vector<pollfd> fds = {{.fd = stop_fd, .events = POLLIN}, {.fd = session.wake_fd(), .events = POLLIN}};
  for (const int fd : agent.exit_fds()) fds.push_back({.fd = fd, .events = POLLIN});
  const int64_t sleep_ms = std::min(agent.sleep_ms(), session.reconnect_in_ms());
  if (::poll(fds.data(), fds.size(), static_cast<int>(sleep_ms)) < 0) return false;  // EINTR: look again
  uint64_t count = 0;
  return (fds[0].revents & POLLIN) != 0 && ::read(stop_fd, &count, sizeof count) > 0;
}

int fail(const Error& error) {
  log::fatal(error.message);
  return 1;
}

// Trainers go on, and a worker of the daemon's version takes them over where this one ends.
int leave(const std::string& why) {
  return fail({ErrorCode::failed_precondition,
               why + "; this worker ends and leaves its runs to the next one, which must be of the daemon's build"});
}

int serve(Agent& agent, Session& session) {
  while (!agent.finished()) {
    if (session.reconnect_in_ms() == 0) session.connect(agent.hello());
    if (wait(agent, session)) {
      log::info("asked to stop: ending every run of this worker");
      agent.shut_down();
    }
    const Session::Received received = session.receive();
    if (!received.other_protocol.empty()) return leave(received.other_protocol);
    for (const DaemonMessage& message : received.messages) agent.handle(message);
    if (received.closed) agent.disconnected();
    agent.tick();
  }
  log::info("ends");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The worker agent of Assay: offers this host's devices to a daemon and runs its trainers.",
               "assay-worker");
  std::string home, socket;
  bool allow_faults = false;
  app.add_option("--home", home, home_help);
  app.add_option("--socket", socket, "the daemon's Unix socket (default: in the home)");
  app.add_flag("--allow-fault-injection", allow_faults, "let runs inject the faults that their config names");
  if (const auto status = read_arguments(app, argc, argv, 1)) return *status;

  if (const Status started = log::start("assay-worker"); !started.ok()) return fail(started.error());
  auto folder = home_folder(home);
  if (!folder.ok()) return fail(folder.error());
  if (socket.empty()) {
    auto path = socket_path(*folder);
    if (!path.ok()) return fail(path.error());
    socket = *path;
  }
  const auto lock = lock_worker(*folder);
  if (!lock.ok()) return fail(lock.error());
  const auto id = stable_worker_id(*folder);
  if (!id.ok()) return fail(id.error());
  stop_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stop_fd < 0) return fail({ErrorCode::internal, "cannot make an eventfd"});
  install_signals();

  const SystemClock clock;
  SystemProcesses processes;
  Session session(socket, clock);
  std::vector<DeviceInfo> devices = list_devices(host_name());
#ifdef ASSAY_WITH_CUDA
  std::string problem;
  const std::optional<Nvml> nvml = load_nvml(&problem);
  GpuUse use(nvml);  // first, so that the driver is opened once
  for (DeviceInfo& gpu : offer_gpus(list_gpus(nvml, problem), std::getenv("CUDA_VISIBLE_DEVICES")))
    devices.push_back(std::move(gpu));
#else
  GpuUse use(std::nullopt);
  log::info("no GPU is offered: this build has no CUDA engine");
#endif
  Agent agent(*folder, *id, std::move(devices), use,
              {clock, processes, session, program_folder() + "/assay-trainer", allow_faults});
  if (const Status recovered = agent.recover(); !recovered.ok()) return fail(recovered.error());
  return serve(agent, session);
}
