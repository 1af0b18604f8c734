#include "base/log.h"

#include <fmt/core.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "base/limits.h"

namespace assay::log {
namespace {

std::string name = "assay";
bool to_file = false;

std::shared_ptr<spdlog::logger> make_logger(std::string_view program, const std::string& path) {
  spdlog::sink_ptr sink;
  if (path.empty())
    sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  else
    sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
  auto logger = std::make_shared<spdlog::logger>(std::string(program), std::move(sink));
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %n[%P] %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  return logger;
}

spdlog::level::level_enum level_of(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

Status start(std::string_view program, const std::string& path) {
  name = program;
  to_file = false;
  try {
    spdlog::set_default_logger(make_logger(program, path));
    to_file = !path.empty();
  } catch (const spdlog::spdlog_ex& e) {
    spdlog::set_default_logger(make_logger(program, ""));
    return Error{ErrorCode::internal, e.what()};
  }
  return {};
}

void write(Level level, std::string_view text) {
  spdlog::log(level_of(level), "{}", text);  // catches what a sink throws, and tells stderr once a second
}

void warn_once(const std::string& text) {
  static std::mutex mutex;
  static std::set<std::string> written;
  {
    const std::lock_guard lock(mutex);
    if (written.size() >= limits::texts_logged_once || !written.insert(text).second) return;
  }
  write(Level::warn, text);
}

void print_line(std::FILE* out, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), out);
  std::fputc('\n', out);
}

void fatal(std::string_view text) {
  if (to_file) write(Level::error, text);
  print_line(stderr, fmt::format("{}: {}", name, text));
}

}  // namespace assay::log
