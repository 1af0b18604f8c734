// Each verb against a fake daemon: exact text, exit code, what was asked of the daemon.
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "fake_service.h"
#include "spec/step_text.h"
#include "spec/words.h"

namespace assay {
namespace {

using nlohmann::json;
using test::FakeService;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

class Verbs : public test::CliTest {
 protected:
  void SetUp() override { start_daemon(); }
  std::string write_spec(const std::string& text) {
    const std::string path = home.file("spec.toml");
    std::ofstream(path) << text;
    return path;
  }
  static constexpr const char* small_spec =
      "experiment = \"demo\"\n[defaults]\nmodel = {depth = 2}\ndata = {path = \"data\"}\n[matrix]\nprecision = "
      "[\"bf16\", \"fp8_experts\"]\n";
};

TEST_F(Verbs, LsIsATableWithCounts) {
  FakeService::observe(fake.add_run("moe_bf16", "completed"), 140, 4.6605, 947987, 556.6);
  fake.runs.mutable_runs(0)->mutable_latest()->set_finished_at(1'771'948'186'000);
  FakeService::observe(fake.add_run("moe_fp8", "running"), 70, 5.5, 781338, 673);
  fake.runs.mutable_runs(1)->mutable_latest()->set_n(2);
  v1::Run& failed = fake.add_run("bad", "failed");
  failed.mutable_latest()->mutable_outcome()->set_reason("plan_error");
  failed.mutable_latest()->mutable_outcome()->set_error("d_model 96 is not\nmore");
  fake.add_run("waits", "queued");
  EXPECT_EQ(run({"ls"}), ExitCode::ok);
  EXPECT_EQ(out,
            "run       state         step    loss  tok/sec    time  remark\n"
            "moe_bf16  completed  140/140  4.6605   947987  1m 00s\n"
            "moe_fp8   running     70/140  5.5000   781338  1m 00s  attempt 2\n"
            "bad       failed       0/140       -        -       -  plan_error: d_model 96 is not\n"
            "waits     queued       0/140       -        -       -\n"
            "\n"
            "1 running, 1 queued, 1 completed, 1 failed\n");
}

// As of a shell variable that is not set: `hold --tag "$TAG"` must not hold the whole queue.
TEST_F(Verbs, AnEmptyNameIsNotTheSameAsNone) {
  const std::string spec = write_spec(small_spec);
  const std::vector<std::vector<std::string>> lines = {
      {"ls", "--tag", ""},         {"watch", "--tag", ""},        {"wait", "--tag", ""},
      {"hold", "--tag", ""},       {"release", "--tag", ""},      {"retry", "--failed", "--tag", ""},
      {"cancel", "--tag", ""},     {"report", "--tag", ""},       {"report", "--baseline", ""},
      {"export", "--tag", ""},     {"export", "-o", ""},          {"report", "-o", ""},
      {"plan", spec, "--tag", ""}, {"enqueue", spec, "--tag", ""}};
  for (const auto& line : lines) {
    EXPECT_EQ(run(line), ExitCode::usage) << line[0];
    EXPECT_THAT(err, HasSubstr("is empty; leave it out or say what is meant")) << line[0];
  }
}

TEST_F(Verbs, ANameThatIsNotUtf8IsRefusedInWords) {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"show", "a\xff"}, {"ls", "--tag", "a\xff"}, {"cancel", "b", "a\xff"}}) {
    EXPECT_EQ(run(command), ExitCode::invalid);
    EXPECT_EQ(err, "assay: \"a\\xff\" is not UTF-8\n");
  }
}

TEST_F(Verbs, LsPassesItsFiltersOn) {
  EXPECT_EQ(run({"ls", "--tag", "t9", "--state", "running", "--state", "queued", "--limit", "5"}), ExitCode::ok);
  EXPECT_EQ(fake.last_list.selector().tag(), "t9");
  EXPECT_THAT(fake.last_list.selector().states(), testing::ElementsAre("running", "queued"));
  EXPECT_EQ(fake.last_list.limit(), 5);
  EXPECT_EQ(out, "no runs\n");
}

TEST_F(Verbs, LsSaysWhatItLeavesOutAndThatTheQueueIsHeld) {
  for (int i = 0; i < 7; ++i) fake.add_run("a" + std::to_string(i), "queued");
  fake.runs.set_queue_held(true);
  EXPECT_EQ(run({"ls", "--limit", "1"}), ExitCode::ok);
  EXPECT_THAT(
      out, HasSubstr("7 queued (1 of 7 runs shown)\nthe queue is held: nothing new starts before `assay release`\n"));
}

TEST_F(Verbs, AListIsWholeOrAnError) {
  for (int i = 0; i < 1'001; ++i) fake.add_run("run" + std::to_string(i), "queued");
  EXPECT_EQ(run({"ls", "--json"}), ExitCode::ok);
  EXPECT_EQ(json::parse(out)["runs"].size(), 1'001u);
  EXPECT_EQ(json::parse(out)["runs"][1'000]["name"], "run1000");
  fake.runs_not_sent = 1;
  const std::vector<std::vector<std::string>> verbs = {
      {"ls"}, {"export"}, {"export", "-o", home.file("f")}, {"wait", "--tag", "t1"}, {"watch", "--until-done"}};
  for (const auto& verb : verbs) {
    EXPECT_EQ(run(verb), ExitCode::internal) << verb[0];
    EXPECT_THAT(err, HasSubstr("the daemon listed 1001 runs where there are 1002")) << verb[0];
  }
  EXPECT_FALSE(std::filesystem::exists(home.file("f")));
}

// A newer daemon may have states that this program does not know.
TEST_F(Verbs, AStateThatNobodyKnowsIsShownAsItIsAndCountsAsNoOther) {
  fake.add_run("a", "archived");
  fake.add_run("b", "completed");
  EXPECT_EQ(run({"ls"}), ExitCode::ok) << err;
  EXPECT_THAT(out, AllOf(HasSubstr("archived"), HasSubstr("1 completed, 1 archived\n")));
  EXPECT_EQ(run({"wait"}), ExitCode::refused);
  EXPECT_THAT(err, HasSubstr("the daemon has runs in the state \"archived\", which this program does not know"));
  EXPECT_EQ(run({"watch", "--until-done"}), ExitCode::refused);
  EXPECT_THAT(err, HasSubstr("\"archived\""));
}

TEST_F(Verbs, TheStatesToChooseFromAreThoseOfTheQueue) {
  EXPECT_EQ(run({"ls", "--state", "sleeping"}), ExitCode::usage);
  for (const std::string_view state : word_texts<RunState>) EXPECT_THAT(err, HasSubstr(std::string(state)));
}

TEST_F(Verbs, LsAsJson) {
  FakeService::observe(fake.add_run("a", "running"), 3, std::nan(""), 10, 5);
  fake.add_run("b", "queued");
  EXPECT_EQ(run({"ls", "--json"}), ExitCode::ok);
  const json answer = json::parse(out);
  EXPECT_EQ(answer["total"], 2);
  EXPECT_EQ(answer["runs"][0]["name"], "a");
  EXPECT_EQ(answer["runs"][0]["latest"]["last_step"], 2);
  EXPECT_TRUE(answer["runs"][0]["latest"]["last_loss"].is_null());
  EXPECT_TRUE(answer["runs"][1]["latest"].is_null());
}

TEST_F(Verbs, EnqueueSendsTheTextAndSaysWhatWasAdded) {
  fake.enqueued.set_experiment("demo");
  fake.enqueued.set_tag("monday");
  fake.enqueued.add_added("demo_bf16");
  fake.enqueued.set_already_there(1);
  const std::string spec = write_spec(small_spec);
  EXPECT_EQ(run({"enqueue", spec, "--tag", "monday"}), ExitCode::ok) << err;
  EXPECT_EQ(out, "demo  tag monday\n1 run added, 1 already there\n  demo_bf16\n");
  EXPECT_EQ(fake.last_enqueue.spec_text(), small_spec);
  EXPECT_EQ(fake.last_enqueue.spec_file(), spec);
  EXPECT_EQ(fake.last_enqueue.tag(), "monday");
  EXPECT_THAT(fake.last_enqueue.base_folder(), MatchesRegex("/.*"));
  EXPECT_THAT(fake.last_enqueue.request_id(),
              MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  const std::string first = fake.last_enqueue.request_id();
  EXPECT_EQ(run({"enqueue", spec}), ExitCode::ok);
  EXPECT_NE(fake.last_enqueue.request_id(), first);
}

TEST_F(Verbs, AWrongSpecIsRefusedHereWithItsPlace) {
  const std::string spec = write_spec("experiment = \"demo\"\n[defaults]\nmodel = {dept = 2}\n");
  for (const char* verb : {"enqueue", "plan"}) {
    EXPECT_EQ(run({verb, spec}), ExitCode::invalid);
    EXPECT_THAT(err, HasSubstr(spec + ":3:")) << verb;
    EXPECT_THAT(err, HasSubstr("depth")) << "did you mean";
    EXPECT_EQ(out, "");
  }
  EXPECT_EQ(fake.last_enqueue.spec_text(), "") << "nothing may have been sent";
  EXPECT_EQ(run({"enqueue", home.file("nosuch.toml")}), ExitCode::not_found);
  EXPECT_THAT(err, HasSubstr("nosuch.toml"));
}

TEST_F(Verbs, PlanIsATableAndItsProblemsAreErrors) {
  fake.plan.set_experiment("demo");
  v1::PlannedRun& a = *fake.plan.add_runs();
  a.set_name("demo_bf16");
  a.set_precision("bf16");
  a.set_execution("dynamic");
  a.set_steps(140);
  a.set_parameters(1'250'000);
  a.set_peak_mem_mib(87.31);
  a.set_device("cpu");
  a.set_device_name("a CPU");
  a.set_fits(true);
  a.set_estimated_seconds(75);
  v1::PlannedRun& b = *fake.plan.add_runs();
  b = a;
  b.set_name("demo_fp8");
  b.set_fits(false);
  b.set_problem("needs 90000.00 MiB, the largest device has 16000.00 MiB");
  fake.plan.set_total_seconds(75);
  EXPECT_EQ(run({"plan", write_spec(small_spec)}), ExitCode::limits);
  EXPECT_EQ(out,
            "demo\n"
            "\n"
            "run        precision  execution  steps  params  device       peak  fits  est. time  remark\n"
            "demo_bf16  bf16       dynamic      140   1.25M  cpu     87.31 MiB  yes      1m 15s\n"
            "demo_fp8   bf16       dynamic      140   1.25M  cpu     87.31 MiB  no       1m 15s  problem\n"
            "\n"
            "cpu: a CPU\n"
            "1 run to add, about 1m 15s in all\n");
  EXPECT_EQ(err, "assay: demo_fp8: needs 90000.00 MiB, the largest device has 16000.00 MiB\n");
}

TEST_F(Verbs, PlanTellsRunsApartOnANarrowTerminal) {
  fake.plan.set_experiment("demo");
  for (const char* name : {"moe_fp8_experts_static", "moe_fp8_experts_dynamic", "moe_fp8_experts_static_repeat2",
                           "moe_fp8_experts_dynamic_repeat2"}) {
    v1::PlannedRun& r = *fake.plan.add_runs();
    r.set_name(name);
    r.set_precision("fp8_experts");
    r.set_execution("dynamic");
    r.set_steps(200);
    r.set_peak_mem_mib(181.1);
    r.set_device("cpu");
    r.set_fits(true);
    r.set_already_queued(true);
  }
  width = 80;
  EXPECT_EQ(run({"plan", write_spec(small_spec)}), ExitCode::ok);
  EXPECT_THAT(out, HasSubstr("run moe_fp8_ex…  steps        peak  fits  est. time  remark\n"
                             "static             200  181.10 MiB  yes           -  already queued\n"
                             "dynamic            200  181.10 MiB  yes           -  already queued\n"
                             "static_repeat2     200  181.10 MiB  yes           -  already queued\n"
                             "dynamic_repeat2    200  181.10 MiB  yes           -  already queued\n"));
}

TEST_F(Verbs, PlanEndsAsEnqueueWouldAndSaysWhatElseItWouldDo) {
  fake.plan.set_experiment("demo");
  v1::PlannedRun& a = *fake.plan.add_runs();
  a.set_name("demo_bf16");
  a.set_device("cuda");
  a.set_device_name("NVIDIA H100");
  a.set_fits(true);
  a.set_shortage("only 1 MiB is available now");
  fake.plan.add_warnings("the rates jump (run demo_bf16)");
  fake.plan.add_updated("priority 0 -> 5 (3 waiting runs)");
  fake.plan.add_notes("/c: 100 training tokens");
  EXPECT_EQ(run({"plan", write_spec(small_spec)}), ExitCode::ok);
  EXPECT_THAT(out, HasSubstr("not now"));
  EXPECT_THAT(
      out, testing::EndsWith("cuda: NVIDIA H100\n/c: 100 training tokens\nto update: priority 0 -> 5 (3 waiting runs)\n"
                             "1 run to add, total time unknown: no run like these has been measured here\n"));
  EXPECT_EQ(err, "assay: warning: the rates jump (run demo_bf16)\n");

  a.set_problem("another config");
  a.set_conflict(true);
  EXPECT_EQ(run({"plan", write_spec(small_spec), "--json"}), ExitCode::refused);
  const json document = json::parse(out);
  EXPECT_EQ(document["warnings"][0], "the rates jump (run demo_bf16)");
  EXPECT_EQ(document["updated"][0], "priority 0 -> 5 (3 waiting runs)");
  EXPECT_TRUE(document["total_seconds"].is_null());
  EXPECT_EQ(document["runs"][0]["device"], "cuda");
  EXPECT_EQ(document["runs"][0]["conflict"], true);
  EXPECT_EQ(err, "") << "the document has it all";
  a.set_conflict(false);
  EXPECT_EQ(run({"plan", write_spec(small_spec)}), ExitCode::invalid) << "a problem that is not one of size";

  fake.enqueued.set_experiment("demo");
  fake.enqueued.set_tag("t1");
  fake.enqueued.set_already_there(2);
  fake.enqueued.add_updated("priority 0 -> 5 (3 waiting runs)");
  fake.enqueued.add_warnings("the rates jump (run demo_bf16)");
  EXPECT_EQ(run({"enqueue", write_spec(small_spec)}), ExitCode::ok);
  EXPECT_EQ(out, "demo  tag t1\n0 runs added, 2 already there\nupdated: priority 0 -> 5 (3 waiting runs)\n");
  EXPECT_EQ(err, "assay: warning: the rates jump (run demo_bf16)\n");
}

TEST_F(Verbs, ShowHasAttemptsConfigAndErrors) {
  v1::Run& r = fake.add_run("moe_fp8", "running");
  r.set_config_toml("precision = \"fp8_experts\"\n");
  v1::Attempt& first = *r.add_attempts();
  first.set_n(1);
  first.set_state("ended");
  first.set_log_path("/state/log");
  first.mutable_outcome()->set_result("failed");
  first.mutable_outcome()->set_reason("crashed");
  first.mutable_outcome()->set_error("ended by signal 11\ndetail \x1b[31m");
  first.mutable_outcome()->set_step(12);
  first.mutable_outcome()->set_signal(11);
  first.mutable_outcome()->set_log_tail("step 11\nstep 12\n");
  v1::Attempt& second = *r.add_attempts();
  second.set_n(2);
  second.set_state("running");
  second.set_steps_observed(70);
  second.set_last_step(69);
  second.set_last_loss(5.5);
  second.set_tail50_tok_per_sec(1000);
  second.set_worker_id("w1");
  EXPECT_EQ(run({"show", "moe_fp8"}), ExitCode::ok);
  EXPECT_THAT(out,
              HasSubstr("run         moe_fp8\nexperiment  demo (tag t1)\nstate       running\nsteps       70/140\n"));
  EXPECT_THAT(out, HasSubstr("      1  moe_fp8.fail1  failed "));
  EXPECT_THAT(out, HasSubstr("      2  moe_fp8        running"));
  EXPECT_THAT(out, HasSubstr("  precision = \"fp8_experts\"\n"));
  EXPECT_THAT(out, HasSubstr("\nmoe_fp8.fail1 (attempt 1): crashed\n  ended by signal 11\n  detail \\x1b[31m\n  step   "
                             "   12\n  signal    SIGSEGV (Segmentation fault)\n"
                             "  log       /state/log\n  last lines of its log:\n    | step 11\n    | step 12\n"));
  EXPECT_EQ(run({"show", "nosuch"}), ExitCode::not_found);
  EXPECT_EQ(err, "assay: no run is named 'nosuch'; `assay ls` lists them\n");
}

TEST_F(Verbs, ShowSaysWhatWasStoppedAndWhyALeaseCameToNothing) {
  v1::Run& r = fake.add_run("a", "queued");
  v1::Attempt& first = *r.add_attempts();
  first.set_n(1);
  first.set_state("ended");
  first.set_steps_observed(3);
  first.set_last_step(2);
  first.mutable_outcome()->set_result("stopped");
  first.mutable_outcome()->set_error("stopped with its worker");
  *r.mutable_latest() = first;
  EXPECT_EQ(run({"show", "a"}), ExitCode::ok);
  EXPECT_THAT(out, HasSubstr("state       queued  stopped with its worker\nsteps       3/140\n"));
  EXPECT_THAT(out, HasSubstr("      1  a     stopped "));
  EXPECT_THAT(out, HasSubstr("\nattempt 1: stopped with its worker\n"));
  EXPECT_THAT(out, Not(HasSubstr(".fail")));
  r.set_not_started("worker w refused the lease: GPU-a is used by python3 (pid 7)");
  EXPECT_EQ(run({"show", "a"}), ExitCode::ok);
  EXPECT_THAT(out, HasSubstr("state       queued  not started: worker w refused the lease: GPU-a is used by python3"));
}

TEST_F(Verbs, WaitGoesOnUntilAllHaveEnded) {
  fake.add_run("a", "running");
  fake.add_run("b", "queued");
  fake.add_run("old", "failed");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    if (pauses == 2) fake.runs.mutable_runs(0)->set_state("completed");
    if (pauses == 4) fake.runs.mutable_runs(1)->set_state("completed");
  };
  EXPECT_EQ(run({"wait"}), ExitCode::ok);
  EXPECT_EQ(pauses, 4);
  EXPECT_EQ(out, "2 completed\n");
}

TEST_F(Verbs, WaitIsOneWhenARunDidNotComplete) {
  fake.add_run("a", "completed");
  v1::Run& bad = fake.add_run("bad", "failed");
  bad.mutable_latest()->mutable_outcome()->set_reason("crashed");
  EXPECT_EQ(run({"wait", "--tag", "t1"}), ExitCode::negative);
  EXPECT_EQ(out, "1 completed, 1 failed\n  bad: failed (crashed)\n");
  EXPECT_EQ(run({"wait", "a"}), ExitCode::ok);
  EXPECT_EQ(run({"wait"}), ExitCode::ok);
  EXPECT_EQ(out, "nothing to wait for\n");
  EXPECT_EQ(run({"wait", "nosuch"}), ExitCode::not_found);
}

TEST_F(Verbs, WaitKeepsToTheRunsItBeganWith) {
  fake.add_run("a", "running");
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    if (pauses == 1) {  // a newer experiment has a run of the same name, which is what "a" means from now on
      v1::Run& newer = fake.add_run("a", "completed");
      newer.set_tag("t2");
      fake.runs.mutable_runs()->SwapElements(0, 1);
    }
    if (pauses == 3) fake.runs.mutable_runs(1)->set_state("failed");
  };
  EXPECT_EQ(run({"wait", "a"}), ExitCode::negative);
  EXPECT_EQ(pauses, 3);
  EXPECT_EQ(out, "1 failed\n  a: failed\n");
}

TEST_F(Verbs, WaitSaysWhichExperimentARunIsOf) {
  fake.add_run("a", "failed");
  fake.add_run("a", "failed").set_tag("t2");
  EXPECT_EQ(run({"wait", "demo/t1/a", "demo/t2/a"}), ExitCode::negative);
  EXPECT_EQ(out, "2 failed\n  t1/a: failed\n  t2/a: failed\n");
  EXPECT_EQ(run({"wait", "demo/t1/a", "--json"}), ExitCode::negative);
  EXPECT_EQ(json::parse(out)["not_completed_full"][0], "demo/t1/a");
}

TEST_F(Verbs, WaitGivesUpInTime) {
  fake.add_run("a", "running");
  EXPECT_EQ(run({"wait", "--timeout", "3s"}), ExitCode::timed_out);
  EXPECT_EQ(pauses, 6);
  EXPECT_EQ(out, "1 running\n  a: running\n");
  EXPECT_EQ(run({"wait", "--timeout", "1", "--json"}), ExitCode::timed_out);
  EXPECT_EQ(
      out,
      R"({"completed":false,"timed_out":true,"states":{"running":1},"not_completed":["a"],"not_completed_full":["demo/t1/a"]})"
      "\n");
}

TEST_F(Verbs, RetryCancelHoldReleaseSayWhatChanged) {
  fake.change.add_changed("a");
  fake.change.add_changed("b");
  EXPECT_EQ(run({"retry", "--failed", "--tag", "t1"}), ExitCode::ok);
  EXPECT_EQ(out, "queued again 2 runs\n  a\n  b\n");
  EXPECT_TRUE(fake.last_retry.failed());
  EXPECT_EQ(fake.last_retry.selector().tag(), "t1");
  EXPECT_EQ(run({"cancel", "--all"}), ExitCode::ok);
  EXPECT_TRUE(fake.last_cancel.all());
  EXPECT_EQ(run({"hold", "a"}), ExitCode::ok);
  EXPECT_EQ(out, "held 2 runs\n  a\n  b\n");
  EXPECT_THAT(fake.last_hold.selector().names(), testing::ElementsAre("a"));
  EXPECT_EQ(run({"release"}), ExitCode::ok);
  EXPECT_TRUE(fake.released);
  EXPECT_EQ(out, "the queue is released; runs held by name or tag stay held\n");
}

TEST_F(Verbs, NothingChangedIsRefused) {
  fake.change.add_unchanged("a: it is running; cancel it first");
  EXPECT_EQ(run({"retry", "a"}), ExitCode::refused);
  EXPECT_EQ(out, "");
  EXPECT_EQ(err, "assay: not queued again: a: it is running; cancel it first\n");
  fake.change.add_changed("b");
  EXPECT_EQ(run({"retry", "a", "b", "--json"}), ExitCode::ok);
  EXPECT_EQ(out, R"({"changed":["b"],"unchanged":["a: it is running; cancel it first"]})"
                 "\n");
}

TEST_F(Verbs, HoldingAHeldQueueIsNoRefusal) {
  fake.change.add_unchanged("the queue: it is held already");
  EXPECT_EQ(run({"hold"}), ExitCode::ok);
  EXPECT_EQ(run({"hold", "--json"}), ExitCode::ok);
  EXPECT_EQ(json::parse(out)["unchanged"][0], "the queue: it is held already");
  EXPECT_EQ(run({"hold", "a", "--json"}), ExitCode::refused);
}

TEST_F(Verbs, LogsAreRawAndComplete) {
  fake.add_run("a", "running");
  fake.log = "\x1b[32mstep 0\x1b[0m\nstep 1\n";
  fake.log_chunk = 5;
  EXPECT_EQ(run({"logs", "a"}), ExitCode::ok);
  EXPECT_EQ(out, fake.log);
  EXPECT_EQ(run({"logs", "a", "--last", "7"}), ExitCode::ok);
  EXPECT_EQ(out, "step 1\n");
}

TEST_F(Verbs, LogsFollowUntilTheAttemptEnds) {
  fake.add_run("a", "running");
  fake.log = "one\n";
  fake.log_live = true;
  on_pause = [&] {
    std::lock_guard guard(fake.mutex);
    if (pauses == 1) fake.log += "two\n";
    if (pauses == 2) fake.log += "three\n";
    if (pauses == 2) fake.log_live = false;
  };
  EXPECT_EQ(run({"logs", "-f", "a"}), ExitCode::ok);
  EXPECT_EQ(out, "one\ntwo\nthree\n");
}

TEST_F(Verbs, ReportWritesItsFiles) {
  fake.report.set_experiment("demo");
  fake.report.set_tag("t1");
  for (const char* name : {"report.md", "summary.csv", "steps.csv"}) {
    v1::ReportFile& file = *fake.report.add_files();
    file.set_name(name);
    file.set_content(std::string(name) + " content");
  }
  const std::string folder = home.file("new/out");
  EXPECT_EQ(run({"report", "--tag", "t1", "--baseline", "a", "-o", folder}), ExitCode::ok) << err;
  EXPECT_EQ(out, folder + "/report.md\n" + folder + "/summary.csv\n" + folder + "/steps.csv\n");
  EXPECT_EQ(*read_file(folder + "/summary.csv"), "summary.csv content");
  EXPECT_EQ(fake.last_report.baseline(), "a");
}

TEST_F(Verbs, ReportMakesTheStepsFileThatDoesNotFitIntoAMessage) {
  fake.report.set_experiment("demo");
  fake.report.set_tag("t1");
  v1::Run& r = fake.add_run("a", "completed");
  v1::Run& other = fake.add_run("a", "completed");  // another experiment of the same tag
  other.set_experiment("other");
  other.add_attempts()->set_n(1);
  r.add_attempts()->set_n(1);
  r.mutable_attempts(0)->mutable_outcome()->set_result("failed");
  r.add_attempts()->set_n(2);
  fake.steps.push_back({.loss = 2.5});
  EXPECT_EQ(run({"report", "-o", home.file("out")}), ExitCode::ok) << err;
  EXPECT_EQ(out, home.file("out/steps.csv") + "\n");
  std::string expected = steps_csv_header();
  append_steps_csv(expected, "a.fail1", 1, fake.steps[0]);
  append_steps_csv(expected, "a", 2, fake.steps[0]);
  EXPECT_EQ(*read_file(home.file("out/steps.csv")), expected);
}

TEST_F(Verbs, ReportsOfOneTagDoNotTakeEachOthersPlace) {
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(home.path());
  fake.report.set_tag("two");
  fake.report.add_files()->set_name("report.md");
  fake.report.add_files()->set_name("steps.csv");
  for (const char* experiment : {"expa", "expb"}) {
    fake.report.set_experiment(experiment);
    fake.report.set_tag_shared(true);
    fake.report.mutable_files(0)->set_content(experiment);
    EXPECT_EQ(run({"report", "--tag", std::string(experiment) + "/two"}), ExitCode::ok) << err;
    EXPECT_THAT(out, testing::StartsWith("report_" + std::string(experiment) + "/two/report.md\n"));
  }
  fake.report.set_tag_shared(false);
  EXPECT_EQ(run({"report"}), ExitCode::ok) << err;
  EXPECT_THAT(out, testing::StartsWith("report_two/report.md\n"));
  std::filesystem::current_path(here);
  EXPECT_EQ(*read_file(home.file("report_expa/two/report.md")), "expa");
  EXPECT_EQ(*read_file(home.file("report_expb/two/report.md")), "expb");
}

TEST_F(Verbs, ReportStaysInItsFolder) {
  fake.report.set_tag("t1");
  fake.report.add_files()->set_name("../escaped");
  EXPECT_EQ(run({"report", "-o", home.file("out")}), ExitCode::internal);
  EXPECT_FALSE(std::filesystem::exists(home.file("escaped")));
  fake.report.set_tag("../up");
  EXPECT_EQ(run({"report"}), ExitCode::invalid);
  EXPECT_THAT(err, HasSubstr("give a folder with -o"));
}

TEST_F(Verbs, ReportIntoAFileIsAnError) {
  std::ofstream(home.file("taken")) << "x";
  fake.report.set_tag("t1");
  fake.report.add_files()->set_name("report.md");
  EXPECT_NE(run({"report", "-o", home.file("taken")}), ExitCode::ok);
  EXPECT_THAT(err, HasSubstr("taken"));
}

TEST_F(Verbs, ExportPagesThroughTheSteps) {
  FakeService::observe(fake.add_run("a,b", "completed"), 3, 1, 1, 1);
  fake.add_run("never_started", "queued");
  for (int i = 0; i < 3; ++i) fake.steps.push_back({.step = i, .loss = 4.5 - i, .unix_ms = 77});
  fake.steps[2].val_loss = 4;
  fake.steps[2].tokens = 9'007'199'254'740'993;  // more than a double holds
  fake.steps[2].flops = 1.5e18;
  fake.steps_per_page = 2;
  std::string csv = "experiment,tag," + steps_csv_header();
  for (const StepMetrics& step : fake.steps) append_steps_csv(csv += "demo,t1,", "a,b", 1, step);
  EXPECT_THAT(csv, HasSubstr("\ndemo,t1,\"a,b\",1,1,3.5,0,0,0,0,0,0,0,0,,77,,"));
  EXPECT_THAT(csv, HasSubstr("\ndemo,t1,\"a,b\",1,2,2.5,0,0,0,0,0,0,0,0,4,77,9007199254740993,1.5e+18"));
  EXPECT_EQ(run({"export"}), ExitCode::ok);
  EXPECT_EQ(out, csv);
  EXPECT_EQ(run({"export", "-o", home.file("steps.csv")}), ExitCode::ok);
  EXPECT_EQ(*read_file(home.file("steps.csv")), csv);
  EXPECT_EQ(run({"export", "--format", "jsonl"}), ExitCode::ok);
  const json first = json::parse(out.substr(0, out.find('\n')));
  EXPECT_EQ(first["run"], "a,b");
  EXPECT_EQ(first["loss"], 4.5);
  for (const char* name : {"val_loss", "tokens", "flops"}) {
    EXPECT_TRUE(first.contains(name)) << name;
    EXPECT_TRUE(first[name].is_null()) << name;
  }
  EXPECT_THAT(out, HasSubstr(R"("unix_ms":77,"tokens":9007199254740993,"flops":1.5e+18)"));
  EXPECT_EQ(run({"export", "--format", "json"}), ExitCode::ok);
  EXPECT_EQ(json::parse(out).size(), 2u);
  EXPECT_EQ(run({"export", "never_started"}), ExitCode::ok);
  EXPECT_EQ(err, "assay: never_started has not been started yet: it has no steps\n");
}

TEST_F(Verbs, ExportNamesOnceWhatANewerDaemonSends) {
  FakeService::observe(fake.add_run("a", "completed"), 3, 1, 1, 1);
  fake.steps.resize(3);
  for (int i = 0; i < 3; ++i) fake.steps[static_cast<size_t>(i)].step = i;
  fake.steps_per_page = 1;
  fake.newer_column = "zeal";
  EXPECT_EQ(run({"export"}), ExitCode::ok);
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 4);
  EXPECT_EQ(err, "assay: the daemon is newer and sends a column \"zeal\", which is left out\n");
}

TEST_F(Verbs, ExportFromADaemonThatSendsStepsOtherwiseIsNotEmptyButAnError) {
  FakeService::observe(fake.add_run("a", "completed"), 1, 1, 1, 1);
  fake.without_columns = true;
  EXPECT_EQ(run({"export"}), ExitCode::refused);
  EXPECT_THAT(err,
              HasSubstr("assay: the daemon is of another version of Assay and sends steps otherwise; `assay down`"));
}

TEST_F(Verbs, ExportKeepsRunsOfOneNameApart) {
  FakeService::observe(fake.add_run("a", "completed"), 1, 1, 1, 1);
  FakeService::observe(fake.add_run("a", "completed"), 1, 1, 1, 1);
  fake.runs.mutable_runs(1)->set_tag("t2");
  fake.steps.emplace_back();
  EXPECT_EQ(run({"export"}), ExitCode::ok);
  EXPECT_THAT(out, testing::AllOf(HasSubstr("\ndemo,t1,a,1,0,"), HasSubstr("\ndemo,t2,a,1,0,")));
  EXPECT_EQ(run({"export", "--format", "jsonl"}), ExitCode::ok);
  EXPECT_THAT(out, HasSubstr(R"({"experiment":"demo","tag":"t2","run":"a")"));
}

TEST_F(Verbs, ExportToTheStandardOutputByAnyName) {
  FakeService::observe(fake.add_run("a", "completed"), 1, 1, 1, 1);
  fake.steps.emplace_back();
  EXPECT_EQ(run({"export"}), ExitCode::ok);
  const std::string csv = out;
  for (const char* name : {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
    EXPECT_EQ(run({"export", "-o", name}), ExitCode::ok);
    EXPECT_EQ(out, csv) << name;
  }
}

TEST_F(Verbs, ExportToAFullDeviceFailsAndLeavesIt) {
  FakeService::observe(fake.add_run("a", "completed"), 1, 1, 1, 1);
  fake.steps.emplace_back();
  EXPECT_EQ(run({"export", "-o", "/dev/full"}), ExitCode::limits);
  EXPECT_EQ(err, "assay: cannot write to /dev/full: No space left on device\n");
  EXPECT_EQ(out, "");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST_F(Verbs, ExportLeavesNoHalfFile) {
  EXPECT_EQ(run({"export", "-o", home.file("nofolder/steps.csv")}), ExitCode::not_found);
  EXPECT_THAT(err, HasSubstr("nofolder/steps.csv"));
}

TEST_F(Verbs, DevicesAreATable) {
  EXPECT_EQ(run({"devices"}), ExitCode::ok);
  EXPECT_EQ(out, "no device: no worker is connected; see `assay doctor`\n");
  v1::Device& d = *fake.devices.add_devices();
  d.set_id("cpu:host");
  d.set_kind("cpu");
  d.set_name("2 cores");
  d.set_memory_bytes(8ll << 30);
  d.set_state("free");
  d.set_host("host");
  d.set_worker_id("w1");
  EXPECT_EQ(run({"devices"}), ExitCode::ok);
  EXPECT_EQ(out,
            "device    kind  name      memory  now  state  host  worker  run\n"
            "cpu:host  cpu   2 cores  8.0 GiB  -    free   host  w1      -\n");
  d.set_id("GPU-a");
  d.set_state("drained");
  d.set_drained_by("python3 (pid 4711)");
  EXPECT_EQ(run({"devices"}), ExitCode::ok);
  EXPECT_THAT(out,
              testing::EndsWith("GPU-a is drained: used by python3 (pid 4711); it gets runs again when nobody else "
                                "uses it\n"));
  EXPECT_EQ(run({"--json", "devices"}), ExitCode::ok);
  EXPECT_EQ(json::parse(out)["devices"][0]["drained_by"], "python3 (pid 4711)");
}

}  // namespace
}  // namespace assay
