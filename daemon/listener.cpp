#include "daemon/listener.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/log.h"

namespace assay {
namespace {

Error socket_error(const char* what, const std::string& path) {
  return Error{ErrorCode::unavailable, fmt::format("cannot {} {}: {}", what, path, std::strerror(errno))};
}

Status remove_old_socket(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode))
    return Error{ErrorCode::failed_precondition, fmt::format("{} is there but is no socket; move it away", path)};
  if (::unlink(path.c_str()) != 0) return socket_error("remove the old socket", path);
  return {};
}

Result<UniqueFd> listen_on(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error{ErrorCode::invalid_argument, fmt::format("{} is too long for a socket path", path)};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  ASSAY_TRY(remove_old_socket(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return socket_error("make a socket for", path);
  // The mode is right from the first moment: there is no window in which others could connect.
  const mode_t old_mask = ::umask(0177);
  const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  ::umask(old_mask);
  if (bound != 0) return socket_error("bind", path);
  if (::listen(fd.get(), SOMAXCONN) != 0) return socket_error("listen on", path);
  return fd;
}

bool peer_may_connect(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  if (may_connect(peer.uid, ::geteuid())) return true;
  log::warn("refused a connection of user {} (pid {})", peer.uid, peer.pid);
  return false;
}

}  // namespace

bool may_connect(uid_t peer, uid_t owner) {
  return peer == owner || peer == 0;
}

Result<std::unique_ptr<Listener>> Listener::open(const std::string& path, Accept accept) {
  ASSAY_ASSIGN(UniqueFd socket, listen_on(path));
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return socket_error("make an eventfd for", path);
  return std::unique_ptr<Listener>(new Listener(path, std::move(socket), std::move(wake), std::move(accept)));
}

Listener::Listener(std::string path, UniqueFd socket, UniqueFd wake, Accept accept)
    : path_(std::move(path)),
      socket_(std::move(socket)),
      wake_(std::move(wake)),
      accept_(std::move(accept)),
      thread_([this] { run(); }) {}

Listener::~Listener() {
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) != sizeof one) log::error("cannot wake the listener of {}", path_);
  thread_.join();
  ::unlink(path_.c_str());
}

void Listener::run() {
  while (true) {
    std::array<pollfd, 2> fds = {pollfd{socket_.get(), POLLIN, 0}, pollfd{wake_.get(), POLLIN, 0}};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR
    if (fds[1].revents != 0) return;
    UniqueFd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) continue;
      // Out of descriptors or memory: poll would report the waiting connection again at once.
      log::error("cannot accept on {}: {}", path_, std::strerror(errno));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      continue;
    }
    if (peer_may_connect(fd.get())) accept_(fd.release());
  }
}

}  // namespace assay
