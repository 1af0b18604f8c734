#include "base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/process/args.hpp>
#include <boost/process/child.hpp>
#include <boost/process/error.hpp>
#include <boost/process/exe.hpp>
#include <boost/process/extend.hpp>
#include <boost/process/io.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "base/unique_handle.h"

namespace assay {
namespace {

namespace bp = boost::process;

constexpr unsigned close_range_cloexec = 1u << 2;  // CLOSE_RANGE_CLOEXEC of linux/close_range.h

// Only calls that are async-signal-safe: the child of a program with threads may not allocate or take locks.
void close_on_exec_from(int first) {
#ifdef SYS_close_range
  if (::syscall(SYS_close_range, static_cast<unsigned>(first), ~0u, close_range_cloexec) == 0) return;
#endif
  const long limit = ::sysconf(_SC_OPEN_MAX);  // Linux before 5.11
  for (int fd = first; fd < limit; ++fd) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

// Runs in the child between fork and exec, so nothing the parent did to signals or descriptors reaches the program.
void set_up_child(bool new_session, int output_fd) {
  const bool grouped = new_session ? ::setsid() != -1 : ::setpgid(0, 0) == 0;
  const bool redirected =
      output_fd < 0 || (::dup2(output_fd, STDOUT_FILENO) >= 0 && ::dup2(output_fd, STDERR_FILENO) >= 0);
  if (!grouped || !redirected) {
    static constexpr char note[] = "cannot set up the child process\n";
    [[maybe_unused]] const ssize_t written = ::write(output_fd < 0 ? STDERR_FILENO : output_fd, note, sizeof note - 1);
    ::_exit(127);
  }
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) ::signal(signal, SIG_DFL);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  close_on_exec_from(3);
}

// The number is at least 3, so that dup2 onto stdout or stderr always makes a copy without close-on-exec.
Result<UniqueFd> open_output(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (fd && fd.get() < 3) fd = UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!fd)
    return Error{ErrorCode::internal,
                 fmt::format("cannot open {} for the output of a program: {}", path, std::strerror(errno))};
  return fd;
}

ErrorCode code_of(const std::error_code& ec) {
  if (ec == std::errc::no_such_file_or_directory || ec == std::errc::not_a_directory) return ErrorCode::not_found;
  if (ec == std::errc::permission_denied) return ErrorCode::permission_denied;
  if (ec == std::errc::not_enough_memory || ec == std::errc::resource_unavailable_try_again)
    return ErrorCode::resource_exhausted;
  return ErrorCode::internal;
}

struct StatLine {
  char state = 0;
  int64_t start_ticks = 0;
};

// proc(5): "pid (comm) state ppid ...". comm may hold anything, ')' and spaces included, so fields count from the last
// ')'.
std::optional<StatLine> parse_stat(std::string_view text) {
  const size_t comm_end = text.rfind(')');
  if (comm_end == std::string_view::npos || comm_end + 2 >= text.size()) return std::nullopt;
  std::string_view rest = text.substr(comm_end + 2);
  StatLine line{.state = rest.front()};
  for (int field = 3; field < 22; ++field) {
    const size_t space = rest.find(' ');
    if (space == std::string_view::npos) return std::nullopt;
    rest.remove_prefix(space + 1);
  }
  const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), line.start_ticks);
  if (parsed.ec != std::errc()) return std::nullopt;
  return line;
}

Result<StatLine> read_stat(pid_t pid) {
  auto text = read_file(fmt::format("/proc/{}/stat", pid));
  // A process that ends while it is read gives ESRCH instead of ENOENT; both mean that it is gone.
  if (!text.ok())
    return Error{ErrorCode::not_found, fmt::format("there is no process {}: {}", pid, text.error().message)};
  const auto line = parse_stat(*text);
  if (!line)
    return Error{ErrorCode::internal, fmt::format("/proc/{}/stat is not in the form of proc(5): {}", pid, *text)};
  return *line;
}

ExitStatus to_exit_status(int status) {
  if (WIFSIGNALED(status)) return ExitStatus{.exit_code = -1, .signal = WTERMSIG(status)};
  return ExitStatus{.exit_code = WEXITSTATUS(status), .signal = 0};
}

// This process's environment with the given variables in it, as execve takes it.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& variables) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view text = *entry;
      if (!variables.contains(std::string(text.substr(0, text.find('='))))) entries_.emplace_back(text);
    }
    for (const auto& [name, value] : variables) entries_.push_back(name + "=" + value);
    for (std::string& entry : entries_) pointers_.push_back(entry.data());
    pointers_.push_back(nullptr);
  }
  char** data() { return pointers_.data(); }

 private:
  std::vector<std::string> entries_;
  std::vector<char*> pointers_;
};

}  // namespace

Result<pid_t> spawn(const SpawnOptions& options) {
  if (options.program.empty() || options.program.front() != '/')
    return Error{ErrorCode::invalid_argument,
                 fmt::format("cannot start \"{}\": expected an absolute path of a program", options.program)};
  UniqueFd output;
  if (!options.output_path.empty()) {
    ASSAY_ASSIGN(output, open_output(options.output_path));
  }
  Environment environment(options.environment);

  std::error_code ec;
  pid_t pid = -1;
  bp::child child(
      bp::exe = options.program, bp::args = options.arguments, bp::std_in < bp::null, ec,
      // Not through bp::environment: in Boost 1.74 it looks a name up by comparing beyond the end of shorter entries.
      bp::extend::on_setup = [&](auto& executor) { executor.env = environment.data(); },
      bp::extend::on_exec_setup = [&](auto&) { set_up_child(options.new_session, output.get()); },
      // Boost.Process 1.74 leaves a zombie when exec fails.
      bp::extend::on_error =
          [](auto& executor, const std::error_code&) {
            while (executor.pid > 0 && ::waitpid(executor.pid, nullptr, 0) < 0 && errno == EINTR) continue;
          },
      bp::extend::on_success = [&](auto& executor) { pid = executor.pid; });
  if (ec || pid <= 0)
    return Error{code_of(ec), fmt::format("cannot start {}: {}", options.program, ec ? ec.message() : "fork failed")};
  child.detach();  // waiting is try_wait's work
  return pid;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  const char* text = ::sigdescr_np(signal);
  if (!name || !text) return fmt::format("signal {}", signal);
  return fmt::format("SIG{} ({})", name, text);
}

std::string how_it_ended(const ExitStatus& status) {
  if (status.signal != 0) return "was ended by " + signal_name(status.signal);
  return status.exit_code < 0 ? "ended" : fmt::format("ended with exit code {}", status.exit_code);
}

std::optional<ExitStatus> try_wait(pid_t pid) {
  if (pid <= 0) return ExitStatus{};  // waitpid would take any child
  int status = 0;
  pid_t ended;
  do ended = ::waitpid(pid, &status, WNOHANG);
  while (ended < 0 && errno == EINTR);
  if (ended == 0) return std::nullopt;
  if (ended < 0) return ExitStatus{};
  return to_exit_status(status);
}

Result<ForkEnd> run_in_fork(const std::function<int(int terminal)>& work) {
  const UniqueFd caught(::memfd_create("stderr", MFD_CLOEXEC));
  const pid_t parent = ::getpid();
  const pid_t pid = caught ? ::fork() : -1;
  if (pid < 0)
    return Error{ErrorCode::resource_exhausted, fmt::format("cannot start a child process: {}", std::strerror(errno))};
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);  // it died before it was to be told
    const int terminal = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    ::dup2(caught.get(), STDERR_FILENO);
    ::_exit(work(terminal));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  ForkEnd end{to_exit_status(status), {}};
  std::array<char, 4096> tail{};
  const off_t size = ::lseek(caught.get(), 0, SEEK_END);
  const ssize_t n =
      ::pread(caught.get(), tail.data(), tail.size(), std::max<off_t>(0, size - static_cast<off_t>(tail.size())));
  std::string_view text(tail.data(), static_cast<size_t>(std::max<ssize_t>(n, 0)));
  while (text.ends_with('\n')) text.remove_suffix(1);
  end.last_words = text.substr(text.rfind('\n') + 1);  // npos + 1 = 0
  return end;
}

bool signal_group(pid_t pgid, int signal) {
  if (pgid <= 1) return false;  // kill(0) is our own group, kill(-1) is everybody
  return ::kill(-pgid, signal) == 0 || errno != ESRCH;
}

Result<ProcessIdentity> identify_process(pid_t pid) {
  ASSAY_ASSIGN(const StatLine line, read_stat(pid));
  return ProcessIdentity{.pid = pid, .start_ticks = line.start_ticks, .boot_id = boot_id()};
}

bool is_alive(const ProcessIdentity& identity) {
  if (identity.pid <= 0 || identity.boot_id != boot_id()) return false;
  const auto line = read_stat(identity.pid);
  if (!line.ok() || line->start_ticks != identity.start_ticks) return false;
  return line->state != 'Z' && line->state != 'X';
}

std::string boot_id() {
  static const std::string id = [] {
    auto text = read_file("/proc/sys/kernel/random/boot_id");
    if (!text.ok()) throw std::runtime_error(text.error().message + " (is /proc mounted?)");
    while (!text->empty() && text->back() == '\n') text->pop_back();
    return std::move(text).value();
  }();
  return id;
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

std::string program_folder() {
  std::error_code ec;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ec);
  if (ec) throw std::runtime_error("cannot read /proc/self/exe: " + ec.message() + " (is /proc mounted?)");
  return program.parent_path().string();
}

}  // namespace assay
