// The screen of `assay watch` as lines, and its plain form against a fake daemon.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/format.h"
#include "cli/watch_view.h"
#include "fake_service.h"

namespace assay {
namespace {

using test::CliTest;
using test::FakeService;
using testing::ElementsAre;
using testing::HasSubstr;

v1::ListRunsResponse some_runs(FakeService& fake) {
  FakeService::observe(fake.add_run("moe_fp8_dynamic", "running"), 70, 5.5, 781338, 673);
  fake.add_run("waits", "queued");
  FakeService::observe(fake.add_run("moe_bf16_dynamic", "completed"), 140, 4.6605, 947987, 556.6);
  return fake.listed();
}

WatchView view_of(int width, int height) {
  return {.width = width, .height = height, .now = 1'771'948'186'000, .home = "/home/me/assay"};
}

TEST(WatchScreen, ShowsProgressLossSpeedAndTimeLeft) {
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  FakeService fake;
  EXPECT_THAT(
      watch_lines(some_runs(fake), view_of(100, 24)),
      ElementsAre(
          "assay  /home/me/assay                                                            2026-02-24 15:49:46",
          "[████████████████████                    ]  50%  1 of 3 runs ended",  //
          "",                                                                    //
          "run               state      progress                  step    loss  tok/sec  left  remark",
          "moe_fp8_dynamic   running    ████████          50%   70/140  5.5000   781338  47 s",
          "waits             queued                        0%    0/140       -        -     -",
          "moe_bf16_dynamic  completed  ████████████████ 100%  140/140  4.6605   947987     -",  //
          "",                                                                                    //
          "1 running, 1 queued, 1 completed                                                            q leaves"));
}

TEST(WatchScreen, FitsAnyTerminal) {
  FakeService fake;
  for (int i = 0; i < 50; ++i)
    fake.add_run("moe_fp8_experts_dynamic_" + std::to_string(i), i % 2 ? "queued" : "failed");
  for (int width = 1; width < 130; width += 3) {
    for (int height = 1; height < 40; height += 4) {
      const auto lines = watch_lines(fake.listed(), view_of(width, height));
      EXPECT_LE(lines.size(), static_cast<size_t>(height));
      for (const std::string& line : lines)
        EXPECT_LE(display_width(line), width) << width << "x" << height << ": " << line;
    }
  }
}

TEST(WatchScreen, ScrollsAndSaysWhatIsOutOfSight) {
  FakeService fake;
  for (int i = 0; i < 50; ++i) fake.add_run("run" + std::to_string(i), "queued");
  WatchView view = view_of(80, 16);
  view.first_row = 5;
  const auto lines = watch_lines(fake.listed(), view);
  EXPECT_THAT(lines[4], testing::StartsWith("run5 "));
  EXPECT_THAT(lines.back(), HasSubstr("5 above, 35 below; arrows scroll, q leaves"));
  EXPECT_EQ(last_first_row(50, 16), 40);
  EXPECT_EQ(last_first_row(3, 16), 0);
}

TEST(WatchScreen, AStateThatNobodyKnowsHasNotEnded) {
  FakeService fake;
  fake.add_run("a", "archived");
  fake.add_run("b", "completed");
  const auto lines = watch_lines(fake.listed(), view_of(80, 24));
  EXPECT_THAT(lines[1], HasSubstr("1 of 2 runs ended"));
  EXPECT_THAT(lines.back(), testing::StartsWith("1 completed, 1 archived "));
}

TEST(WatchScreen, SaysWhenTheDaemonIsAway) {
  FakeService fake;
  WatchView view = view_of(80, 24);
  view.problem = "no daemon is running";
  EXPECT_EQ(watch_lines(some_runs(fake), view)[1], "no daemon is running");
}

class WatchPlain : public CliTest {
 protected:
  void SetUp() override {
    ::setenv("TZ", "UTC", 1);
    ::tzset();
    start_daemon();
  }
  void add_event(const std::string& run, const std::string& kind, const std::string& from, const std::string& to,
                 const std::string& cause) {
    v1::Event& e = fake.events.emplace_back();
    e.set_id(static_cast<int64_t>(fake.events.size()));
    e.set_at(clock.unix_ms());
    e.set_experiment("demo");
    e.set_tag("t1");
    e.set_run(run);
    e.set_attempt(1);
    e.set_kind(kind);
    e.set_from_state(from);
    e.set_to_state(to);
    e.set_cause(cause);
  }
};

TEST_F(WatchPlain, OneLinePerChangeUntilDone) {
  v1::Run& a = fake.add_run("a", "queued");
  add_event("a", "run_enqueued", "", "queued", "before the watch");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    if (pauses == 1) {
      a.set_state("running");
      add_event("a", "run_started", "queued", "running", "lease granted");
    }
    if (pauses == 2) FakeService::observe(a, 14, 9.5, 100, 10);
    if (pauses == 3) FakeService::observe(a, 15, 9.4, 100, 10);  // the same tenth: no line
    if (pauses == 4) {
      a.set_state("completed");
      FakeService::observe(a, 140, 4.5, 120, 10);
      add_event("a", "run_completed", "running", "completed", "worker reported\nmore");
    }
  };
  EXPECT_EQ(run({"watch", "--until-done"}), ExitCode::ok) << err;
  EXPECT_EQ(out,
            "2026-02-24 15:49:46  a  queued\n"
            "2026-02-24 15:49:46  a (attempt 1)  run_started  queued -> running  lease granted\n"
            "2026-02-24 15:49:47  a  step 14/140  loss 9.5000  100 tok/sec\n"
            "2026-02-24 15:49:48  a  step 140/140  loss 4.5000  120 tok/sec\n"
            "2026-02-24 15:49:48  a (attempt 1)  run_completed  running -> completed  worker reported\n"
            "1 completed\n");
}

TEST(WatchScreen, CountsWhatItDoesNotList) {
  FakeService fake;
  for (int i = 0; i < 50; ++i) fake.add_run("run" + std::to_string(i), "completed");
  v1::ListRunsResponse list = fake.listed();
  (*list.mutable_by_state())["completed"] = 5'000;
  list.set_total(5'000);
  WatchView view = view_of(90, 24);
  EXPECT_THAT(watch_lines(list, view)[1], testing::EndsWith("100%  5000 of 5000 runs ended"));
  EXPECT_THAT(watch_lines(list, view).back(), testing::AllOf(HasSubstr("5000 completed"), HasSubstr("4982 below")));
  view.first_row = last_first_row(50, 24);
  EXPECT_THAT(watch_lines(list, view).back(), HasSubstr("4950 more: `assay ls`"));
}

TEST(WatchScreen, NamesStayDifferentAt80Columns) {
  FakeService fake;
  for (const char* name : {"moe_fp8_dynamic_noexpertfp8_long", "moe_fp8_experts_dynamic_long", "moe_fp8_experts_static",
                           "moe_fp8_experts_dynamic_coalesce0", "moe_fp8_experts_dynamic_coalesce0_retry2",
                           "moe_fp8_experts_static_repeat", "moe_fp8_experts_nocompile_repeat2"})
    FakeService::observe(fake.add_run(name, "running"), 70, 5.5, 781338, 673);
  const auto lines = watch_lines(fake.listed(), view_of(80, 24));
  EXPECT_THAT(lines[3], testing::StartsWith("run moe_fp8_…"));
  std::set<std::string> shown;
  for (int i = 0; i < 7; ++i) shown.insert(lines[static_cast<size_t>(4 + i)].substr(0, lines[4].find("  running")));
  EXPECT_THAT(shown, testing::SizeIs(7));
  EXPECT_THAT(lines[4], testing::StartsWith("dynamic_noexpertfp8_long"));
}

TEST(WatchScreen, SaysWhoseARunIsWhereSeveralExperimentsAre) {
  FakeService fake;
  fake.add_run("a", "running");
  fake.add_run("a", "queued").set_tag("t2");
  EXPECT_THAT(watch_lines(fake.listed(), view_of(80, 24))[4], testing::StartsWith("t1   a    running"));
  fake.runs.mutable_runs(1)->set_tag("t1");
  fake.runs.mutable_runs(1)->set_experiment("other");
  EXPECT_THAT(watch_lines(fake.listed(), view_of(80, 24))[5], testing::StartsWith("other/t1  a    queued"));
}

TEST_F(WatchPlain, StepsComeAfterTheStartAndBeforeTheEndOfTheirAttempt) {
  v1::Run& a = fake.add_run("a", "queued");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    if (pauses == 1) {  // all of the first attempt and the beginning of the second, between two looks
      add_event("a", "lease_granted", "", "leased", "");
      add_event("a", "attempt_ended", "running", "ended", "crashed");
      add_event("a", "lease_granted", "", "leased", "");
      fake.events.back().set_attempt(2);
      a.set_state("running");
      a.mutable_latest()->set_n(2);
      FakeService::observe(a, 14, 9.5, 100, 10);
    }
    if (pauses == 2) {
      add_event("a", "attempt_ended", "running", "ended", "");
      fake.events.back().set_attempt(2);
      a.set_state("completed");
      FakeService::observe(a, 140, 4.5, 120, 10);
    }
  };
  EXPECT_EQ(run({"watch", "--until-done"}), ExitCode::ok) << err;
  EXPECT_EQ(out,
            "2026-02-24 15:49:46  a  queued\n"
            "2026-02-24 15:49:46  a (attempt 1)  lease_granted  leased\n"
            "2026-02-24 15:49:46  a (attempt 1)  attempt_ended  running -> ended  crashed\n"
            "2026-02-24 15:49:46  a (attempt 2)  lease_granted  leased\n"
            "2026-02-24 15:49:46  a  step 14/140  loss 9.5000  100 tok/sec\n"
            "2026-02-24 15:49:47  a  step 140/140  loss 4.5000  120 tok/sec\n"
            "2026-02-24 15:49:47  a (attempt 2)  attempt_ended  running -> ended\n"
            "1 completed\n");
}

TEST_F(WatchPlain, StepsWaitForTheEventThatStartsTheirAttempt) {
  v1::Run& a = fake.add_run("a", "queued");
  a.set_state("running");
  FakeService::observe(a, 14, 9.5, 100, 10);
  a.mutable_latest()->set_n(1);
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    if (pauses == 1) {  // the list is newer than the events that were read before it
      a.mutable_latest()->set_n(2);
      FakeService::observe(a, 28, 9.0, 100, 10);
    }
    if (pauses == 2) {
      add_event("a", "lease_granted", "", "leased", "");
      fake.events.back().set_attempt(2);
    }
    if (pauses == 3) a.set_state("cancelled");
  };
  EXPECT_EQ(run({"watch", "--until-done"}), ExitCode::ok) << err;
  EXPECT_THAT(out, HasSubstr("a  step 14/140  loss 9.5000  100 tok/sec\n"
                             "2026-02-24 15:49:47  a (attempt 2)  lease_granted  leased\n"
                             "2026-02-24 15:49:47  a  step 28/140"));
}

TEST_F(WatchPlain, ATagMeansItsExperimentInAllItSays) {
  fake.add_run("a", "running");
  fake.add_run("a", "running").set_tag("t2");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    for (v1::Run& run : *fake.runs.mutable_runs()) run.set_state("failed");
    add_event("a", "run_failed", "running", "failed", "mine");
    add_event("a", "run_failed", "running", "failed", "another");
    fake.events.back().set_tag("t2");
  };
  EXPECT_EQ(run({"watch", "--until-done", "--tag", "t1"}), ExitCode::ok) << err;
  EXPECT_THAT(out, testing::AllOf(HasSubstr("mine"), testing::Not(HasSubstr("another")), HasSubstr("1 failed\n")));
  for (v1::Run& run : *fake.runs.mutable_runs()) run.set_state("running");
  fake.events.clear();
  EXPECT_EQ(run({"watch", "--until-done"}), ExitCode::ok) << err;
  EXPECT_THAT(out, HasSubstr("  t2/a (attempt 1)  run_failed")) << "which of the two is said";
}

TEST_F(WatchPlain, JsonLinesSayWhatTheyAre) {
  v1::Run& a = fake.add_run("a", "running");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    a.set_state("failed");
    add_event("a", "run_failed", "running", "failed", "");
  };
  EXPECT_EQ(run({"watch", "--until-done", "--json"}), ExitCode::ok);
  std::istringstream lines(out);
  std::vector<std::string> types;
  for (std::string line; std::getline(lines, line);) types.push_back(nlohmann::json::parse(line)["type"]);
  EXPECT_THAT(types, ElementsAre("progress", "event"));
}

TEST_F(WatchPlain, ADaemonThatStaysAwayEndsTheWatch) {
  fake.add_run("a", "running");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    fake.failure = grpc::Status(grpc::UNAVAILABLE, "the daemon is stopping");
  };
  EXPECT_EQ(run({"watch"}), ExitCode::unavailable);
  EXPECT_EQ(err, "assay: the daemon is stopping; waiting for it\nassay: the daemon is stopping\n");
  EXPECT_GT(pauses, 100);  // a minute of half seconds
}

}  // namespace
}  // namespace assay
