// The daemon's Unix socket: mode 0600, and every peer's user is asked of the kernel (SO_PEERCRED) before a byte is
// read. gRPC 1.51 offers no peer credentials, so connections are accepted here and handed over as file descriptors.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

// May a process of `peer` talk to a daemon of `owner`? The owner and root may.
bool may_connect(uid_t peer, uid_t owner);

class Listener {
 public:
  // Takes a descriptor that is connected, non-blocking and its own to close.
  using Accept = std::function<void(int fd)>;
  // A socket file that is there is replaced: the caller holds the lock of the home folder, so nobody serves it.
  static Result<std::unique_ptr<Listener>> open(const std::string& path, Accept accept);
  ~Listener();  // stops accepting and removes the socket file

 private:
  Listener(std::string path, UniqueFd socket, UniqueFd wake, Accept accept);
  void run();

  std::string path_;
  UniqueFd socket_;
  UniqueFd wake_;  // eventfd
  Accept accept_;
  std::thread thread_;
};

}  // namespace assay
