#include "base/clock.h"

#include <chrono>
#include <ctime>

namespace assay {
namespace {

std::string format_time(int64_t unix_ms, const char* format) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[32];
  const size_t n = std::strftime(text, sizeof text, format, &local);
  return std::string(text, n);
}

}  // namespace

int64_t SystemClock::unix_ms() const {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

int64_t SystemClock::monotonic_ms() const {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

std::string format_local_time(int64_t unix_ms) {
  return format_time(unix_ms, "%Y-%m-%d %H:%M:%S");
}

std::string format_tag(int64_t unix_ms) {
  return format_time(unix_ms, "%Y%m%d_%H%M%S");
}

}  // namespace assay
