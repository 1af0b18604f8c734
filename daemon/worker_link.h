// The way out to one worker. The logic of the daemon knows no more of the network; tests put a fake worker behind it.
#pragma once

#include <string>

#include "wire/messages.h"

namespace assay {

// Neither call blocks or fails: a message lost with its connection is made good at the next greeting.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void send(DaemonMessage message) = 0;
  virtual void close(const std::string& why) = 0;
};

}  // namespace assay
