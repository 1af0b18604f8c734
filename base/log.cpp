#include "base/log.h"

#include <fmt/core.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>

namespace assay::log {

namespace {

std::string name = "assay";
bool to_file = false;

}  // namespace

void start(std::string_view program, const std::string& path) {
  name = program;
  to_file = !path.empty();
  std::vector<spdlog::sink_ptr> sinks;
  if (path.empty()) {
    sinks.push_back(std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  } else {
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
  }
  auto logger = std::make_shared<spdlog::logger>(std::string(program), sinks.begin(), sinks.end());
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %n[%P] %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void write(Level level, std::string_view text) {
  switch (level) {
    case Level::debug:
      spdlog::debug("{}", text);
      break;
    case Level::info:
      spdlog::info("{}", text);
      break;
    case Level::warn:
      spdlog::warn("{}", text);
      break;
    case Level::error:
      spdlog::error("{}", text);
      break;
  }
}

void fatal(std::string_view text) {
  if (to_file) write(Level::error, text);
  fmt::print(stderr, "{}: {}\n", name, text);
}

}  // namespace assay::log
