// The worker without its network and its processes: which leases it holds, what it answers the daemon, what it
// remembers on disk. Home layout, all of it small:
//   worker/id                     the worker's id, stable over restarts
//   worker/lock                   held by the one worker of this home
//   worker/leases/<attempt>.<epoch>   one line: the attempt's folder; written before anything is started there
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "worker/device_use.h"
#include "worker/lease_runner.h"
#include "worker/uplink.h"

namespace assay {

// The id in <home>/worker/id, made on first use: "<host>-<8 hex digits>".
Result<std::string> stable_worker_id(const std::string& home);
// The lock that makes a second worker of the same home impossible; kept as long as the descriptor is open.
Result<UniqueFd> lock_worker(const std::string& home);

class Agent {
 public:
  // `devices` are what Hello offers; `use` outlives the agent.
  Agent(std::string home, std::string worker_id, std::vector<DeviceInfo> devices, DeviceUse& use, const RunnerContext&);

  // Takes up the leases of a former life. Call once, before connecting.
  Status recover();

  Hello hello();
  void handle(const DaemonMessage&);
  // The stream ended; nothing is sent until the next Welcome.
  void disconnected() { online_ = false; }
  bool online() const { return online_; }

  // Looks after every lease, sends the heartbeat if it is due.
  void tick();
  // How long the loop may sleep until the next tick, unless a message or an exit_fds() entry wakes it.
  int64_t sleep_ms() const;
  std::vector<int> exit_fds() const;

  // Stops every trainer (SIGTERM, then SIGKILL); their runs count as lost by the worker, not failed by themselves.
  void shut_down();
  // Drained or shut down, and no lease left; or shut down, no trainer left, and the daemon does not answer.
  bool finished() const;

 private:
  void on(const WelcomeMessage&);
  void on(const LeaseMessage&);
  void on(const MetricAckMessage&);
  void on(const StopMessage&);
  void on(const EventAckMessage&);
  void on(const DrainMessage&) { draining_ = true; }
  void on(const AbandonMessage&);

  LeaseRunner* find(const LeaseKey&);
  void refuse(const LeaseKey&, const std::string& why);
  std::string index_path(const LeaseKey&) const;
  void forget_finished();
  void send_heartbeat();
  std::vector<int64_t> look_at(const std::string& device_id);
  std::vector<std::string> users_of(const std::string& device_id);
  bool is_ours(int64_t pid) const;

  std::string home_;
  std::string worker_id_;
  std::vector<DeviceInfo> devices_;
  DeviceUse& use_;
  OccupiedDevices occupied_;  // as last seen
  int64_t next_look_ms_ = 0;  // monotonic: a hello before it tells what was seen last
  RunnerContext context_;
  std::vector<std::unique_ptr<LeaseRunner>> runners_;
  std::deque<int64_t> former_trainers_;  // pids of the last ones that have ended
  bool online_ = false;
  bool draining_ = false;
  bool shutting_down_ = false;
  int64_t farewell_at_ms_ = 0;  // monotonic: when a worker that shuts down stops waiting for acknowledgements
  int64_t heartbeat_ms_;
  int64_t next_heartbeat_ms_ = 0;  // monotonic
};

}  // namespace assay
