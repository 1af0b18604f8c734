// The small parts of base: clocks, Status and Result, unique_handle, logs, the home folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/clock.h"
#include "base/file.h"
#include "base/home.h"
#include "base/log.h"
#include "base/status.h"
#include "base/unique_handle.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using ::testing::HasSubstr;

// Sets a variable, or removes it (nullptr), and puts it back at the end.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~ScopedVariable() { set(old_ ? old_->c_str() : nullptr); }

 private:
  void set(const char* value) { value ? ::setenv(name_, value, 1) : ::unsetenv(name_); }
  const char* name_;
  std::optional<std::string> old_;
};

TEST(Clock, FormatsLocalTime) {
  const ScopedVariable zone("TZ", "UTC");
  ::tzset();
  EXPECT_EQ(format_local_time(1'771'950'621'999), "2026-02-24 16:30:21");
  EXPECT_EQ(format_tag(1'771'950'621'000), "20260224_163021");
  const ScopedVariable shanghai("TZ", "CST-8");
  ::tzset();
  EXPECT_EQ(format_local_time(1'771'950'621'000), "2026-02-25 00:30:21");
}

TEST(Clock, SystemClockAgreesWithTheSystem) {
  const SystemClock clock;
  const int64_t before = std::time(nullptr);
  const int64_t now = clock.unix_ms();
  EXPECT_GE(now, before * 1000);
  EXPECT_LE(now, (std::time(nullptr) + 1) * 1000);
  const int64_t first = clock.monotonic_ms();
  EXPECT_GE(clock.monotonic_ms(), first);
}

TEST(Clock, ManualClockMovesOnlyWhenTold) {
  ManualClock clock(1'000);
  const int64_t start = clock.monotonic_ms();
  clock.advance_ms(50);
  EXPECT_EQ(clock.unix_ms(), 1'050);
  EXPECT_EQ(clock.monotonic_ms(), start + 50);
  clock.set_unix_ms(7);
  EXPECT_EQ(clock.unix_ms(), 7);
  EXPECT_EQ(clock.monotonic_ms(), start + 50);
}

Result<int> half(int value) {
  if (value % 2 != 0) return Error{ErrorCode::invalid_argument, "odd"};
  return value / 2;
}

Result<int> quarter(int value) {
  ASSAY_ASSIGN(const int first, half(value));
  ASSAY_ASSIGN(const int second, half(first));
  return second;
}

Status check_quarter(int value) {
  ASSAY_TRY(quarter(value));
  return {};
}

TEST(Status, FailuresPropagate) {
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_TRUE(check_quarter(12).ok());
  const Status status = check_quarter(6);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(status.error().message, "odd");
}

int destroyed = 0;
void destroy(int) {
  ++destroyed;
}
using Handle = unique_handle<int, destroy, -1>;

TEST(UniqueHandle, DestroysExactlyOnce) {
  destroyed = 0;
  {
    Handle a(1);
    Handle b = std::move(a);
    EXPECT_FALSE(a);
    a = std::move(b);
    EXPECT_EQ(a.get(), 1);
    EXPECT_EQ(destroyed, 0);
    a.reset(2);
    EXPECT_EQ(destroyed, 1);
    *a.out() = 3;
    EXPECT_EQ(destroyed, 2);
    Handle c(4);
    EXPECT_EQ(c.release(), 4);
    Handle empty;
    EXPECT_FALSE(empty);
  }
  EXPECT_EQ(destroyed, 3);
}

TEST(Log, LinesCarryTheLevelAndAreAppended) {
  TempFolder folder;
  const std::string path = folder.file("log");
  ASSERT_TRUE(write_file_atomically(path, "before\n").ok());
  ASSERT_TRUE(log::start("tester", path).ok());
  log::info("{} runs", 3);
  log::error("braces {} stay", "{}");
  log::debug("not shown");
  const std::string text = read_file(path).value();
  ASSERT_TRUE(log::start("tester").ok());
  EXPECT_THAT(text, ::testing::MatchesRegex("before\n[0-9: .-]+ tester\\[[0-9]+\\] info 3 runs\n"
                                            "[0-9: .-]+ tester\\[[0-9]+\\] error braces \\{\\} stay\n"));
}

TEST(Log, AFileThatCannotBeOpenedIsNamed) {
  TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder.file("f"), "").ok());
  const Status started = log::start("tester", folder.file("f/log"));
  ASSERT_FALSE(started.ok());
  EXPECT_THAT(started.error().message, HasSubstr(folder.file("f/log")));
}

TEST(Log, AFullDiskLosesLinesAndNothingElse) {
  ASSERT_TRUE(log::start("tester", "/dev/full").ok());
  for (int i = 0; i < 1'000; ++i) log::error("{}", std::string(100, 'x'));
  ASSERT_TRUE(log::start("tester").ok());
  for (const int buffering : {_IONBF, _IOLBF}) {
    std::FILE* full = std::fopen("/dev/full", "w");
    ASSERT_NE(full, nullptr);
    std::setvbuf(full, nullptr, buffering, 4096);
    log::print_line(full, std::string(10'000, 'x'));
    std::fclose(full);
  }
}

TEST(Home, IsTheFirstOfTheRule) {
  const ScopedVariable home("HOME", "/users/me");
  const ScopedVariable none("ASSAY_HOME", nullptr);
  {
    const ScopedVariable no_state("XDG_STATE_HOME", nullptr);
    EXPECT_EQ(home_folder().value(), "/users/me/.local/state/assay");
    const ScopedVariable relative_state("XDG_STATE_HOME", "relative");
    EXPECT_EQ(home_folder().value(), "/users/me/.local/state/assay");
  }
  const ScopedVariable state("XDG_STATE_HOME", "/state");
  EXPECT_EQ(home_folder().value(), "/state/assay");
  const ScopedVariable assay("ASSAY_HOME", "/assay/x/../y/");
  EXPECT_EQ(home_folder().value(), "/assay/y");
  EXPECT_EQ(home_folder("/chosen").value(), "/chosen");
  EXPECT_EQ(home_folder("chosen").value(), std::filesystem::current_path() / "chosen");
  EXPECT_EQ(path_in_home("/chosen", "/chosen/runs/a/log"), "runs/a/log");
  EXPECT_EQ(path_in_home("/chosen", "/chosen2/log"), "/chosen2/log");
  EXPECT_EQ(path_in_home("/chosen", "/chosen/../log"), "/chosen/../log");
  EXPECT_EQ(path_in_home("/chosen", ""), "");
  EXPECT_EQ(path_from_home("/moved", "runs/a/log"), "/moved/runs/a/log");
  EXPECT_EQ(path_from_home("/moved", "/elsewhere/log"), "/elsewhere/log");
  EXPECT_EQ(path_from_home("/moved", ""), "");
  EXPECT_EQ(daemon_log_path("/chosen"), "/chosen/assayd.log");
}

TEST(Home, ErrorsSayWhatToDo) {
  const ScopedVariable home("HOME", nullptr);
  const ScopedVariable state("XDG_STATE_HOME", nullptr);
  const ScopedVariable assay("ASSAY_HOME", nullptr);
  const auto none = home_folder();
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().message,
            "no state folder: neither ASSAY_HOME, XDG_STATE_HOME nor HOME is set; give one with --home FOLDER");
  EXPECT_EQ(socket_path("/h").value(), "/h/assayd.sock");
  const std::string fits = "/" + std::string(107 - 13, 'x');
  EXPECT_EQ(socket_path(fits).value().size(), 107u);
  const auto too_long = socket_path(fits + "x");
  ASSERT_FALSE(too_long.ok());
  EXPECT_THAT(too_long.error().message,
              HasSubstr("a socket path has at most 107 bytes, this one has 108; choose a shorter ASSAY_HOME"));
}

}  // namespace
}  // namespace assay
