// The worker's stream to the daemon: WorkerService.Session over gRPC, and the only place of the worker that knows
// protobuf. A message that cannot be understood is logged, told to the daemon and left aside. Messages that arrive are
// queued and an eventfd wakes the worker's loop, so everything else is single-threaded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/unique_handle.h"
#include "worker/uplink.h"

namespace assay {

class Session final : public Uplink {
 public:
  // `socket`: path of the daemon's Unix socket. Nothing is opened yet.
  Session(std::string socket, const Clock&);
  ~Session() override;

  // How long until connect() should be called: 0 = now, a large number while a stream is open. The pause after a
  // failure doubles from limits::reconnect_min_ms to limits::reconnect_max_ms, for ever; a Welcome resets it.
  int64_t reconnect_in_ms() const;
  // Starts a stream with this Hello. Call only when there is none.
  void connect(const Hello&);

  struct Received {
    std::vector<DaemonMessage> messages;
    bool closed = false;  // the stream ended after these messages
    // The daemon speaks another protocol than this worker, which can do no more for it; who speaks which. Else empty.
    std::string other_protocol;
  };
  Received receive();
  // Readable when receive() has something.
  int wake_fd() const;

  void send(const Heartbeat&) override;
  void send(const MetricBatch&) override;
  void send(const AttemptEvent&) override;

 private:
  class Stream;
  struct Inbox;
  std::string socket_;
  const Clock& clock_;
  std::shared_ptr<Inbox> inbox_;
  std::unique_ptr<Stream> stream_;
  int64_t pause_ms_;
  int64_t connect_at_ms_ = 0;  // monotonic
  bool reported_ = false;      // the log says once that the daemon is away, not every two seconds
};

}  // namespace assay
