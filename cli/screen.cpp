#include "cli/screen.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace assay {
namespace {

constexpr std::array<int, 4> handled = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};

// Set by signal handlers, read by next_key(): the only state that cannot live in the object.
volatile sig_atomic_t leave_asked = 0;
volatile sig_atomic_t size_changed = 0;

extern "C" void on_signal(int signal) {
  if (signal == SIGWINCH)
    size_changed = 1;
  else
    leave_asked = 1;
}

Key key_of(std::string_view bytes) {
  if (bytes == "q" || bytes == "Q" || bytes == "\x03" || bytes == "\x1b") return Key::leave;
  if (bytes == "k" || bytes == "\x1b[A" || bytes == "\x1bOA") return Key::up;
  if (bytes == "j" || bytes == "\x1b[B" || bytes == "\x1bOB") return Key::down;
  if (bytes == "\x1b[5~") return Key::page_up;
  if (bytes == "\x1b[6~" || bytes == " ") return Key::page_down;
  if (bytes == "g" || bytes == "\x1b[H" || bytes == "\x1b[1~") return Key::home;
  if (bytes == "G" || bytes == "\x1b[F" || bytes == "\x1b[4~") return Key::end;
  return Key::none;
}

}  // namespace

struct Screen::State {
  std::ostream& out;
  bool keyboard = false;  // stdin is a terminal whose settings were changed
  termios saved{};
  std::array<struct sigaction, handled.size()> actions{};
};

Screen::Screen(std::ostream& out) : state_(new State{.out = out}) {
  leave_asked = 0;
  size_changed = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < handled.size(); ++i) ::sigaction(handled[i], &action, &state_->actions[i]);
  if (::isatty(STDIN_FILENO) && ::tcgetattr(STDIN_FILENO, &state_->saved) == 0) {
    termios raw = state_->saved;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    raw.c_cc[VSUSP] = _POSIX_VDISABLE;  // Ctrl-Z would leave the shell on the alternate screen
    state_->keyboard = ::tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  state_->out << "\x1b[?1049h\x1b[?25l\x1b[2J" << std::flush;
}

Screen::~Screen() {
  state_->out << "\x1b[0m\x1b[?25h\x1b[?1049l" << std::flush;
  if (state_->keyboard) ::tcsetattr(STDIN_FILENO, TCSANOW, &state_->saved);
  for (size_t i = 0; i < handled.size(); ++i) ::sigaction(handled[i], &state_->actions[i], nullptr);
}

ScreenSize Screen::size() const {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
  return {size.ws_col, size.ws_row};
}

void Screen::show(const std::vector<std::string>& lines) {
  std::string frame = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) frame += (i == 0 ? "" : "\r\n") + lines[i] + "\x1b[K";
  state_->out << frame << "\x1b[J" << std::flush;
}

Key Screen::next_key(int64_t timeout_ms) {
  if (leave_asked) return Key::leave;
  pollfd input{.fd = state_->keyboard ? STDIN_FILENO : -1, .events = POLLIN};
  const int ready = ::poll(&input, 1, static_cast<int>(timeout_ms));
  if (leave_asked) return Key::leave;
  if (size_changed) {
    size_changed = 0;
    return Key::resized;
  }
  if (ready <= 0) return Key::none;
  char bytes[16];
  const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
  if (n == 0) return Key::leave;  // the terminal is gone
  return n < 0 ? Key::none : key_of({bytes, static_cast<size_t>(n)});
}

}  // namespace assay
