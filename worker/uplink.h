// The way out to the daemon. The logic of the worker knows no more of the network.
#pragma once

#include "wire/messages.h"

namespace assay {

// Where messages to the daemon go. Sending never blocks and never fails: what was lost with a connection is sent again
// after the next Welcome.
class Uplink {
 public:
  virtual ~Uplink() = default;
  virtual void send(const Heartbeat&) = 0;
  virtual void send(const MetricBatch&) = 0;
  virtual void send(const AttemptEvent&) = 0;
};

}  // namespace assay
