// A daemon that exists only in the test: answers are plain fields, requests are kept, the queue moves when a verb
// pauses.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/home.h"
#include "cli/program.h"
#include "proto/queue.grpc.pb.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace assay::test {

class FakeService final : public v1::QueueService::Service {
 public:
  std::mutex mutex;
  grpc::Status failure;  // every call fails with it, if it is not OK
  v1::InfoResponse info;
  v1::PlanResponse plan;
  v1::EnqueueResponse enqueued;
  v1::ListRunsResponse runs;
  v1::ChangeResponse change;
  v1::GetReportResponse report;
  v1::ListDevicesResponse devices;
  std::vector<v1::Event> events;
  std::vector<v1::StepMetrics> steps;
  int64_t steps_per_page = 1000;
  std::string log;
  int64_t log_chunk = 1 << 20;
  bool log_live = false;

  v1::EnqueueRequest last_enqueue;
  v1::PlanRequest last_plan;
  v1::ListRunsRequest last_list;
  v1::RetryRequest last_retry;
  v1::CancelRequest last_cancel;
  v1::HoldRequest last_hold;
  v1::GetReportRequest last_report;
  bool released = false;
  bool stop_workers = true;

  v1::Run& add_run(const std::string& name, const std::string& state, int64_t total_steps = 140) {
    v1::Run& run = *runs.add_runs();
    run.set_id(runs.runs_size());
    run.set_experiment("demo");
    run.set_tag("t1");
    run.set_name(name);
    run.set_state(state);
    run.set_total_steps(total_steps);
    run.set_repeat(1);
    run.set_devices(1);
    run.set_created_at(1'771'948'000'000);
    runs.set_total(runs.runs_size());
    return run;
  }
  static void observe(v1::Run& run, int64_t steps, double loss, double tok_per_sec, double dt_ms) {
    v1::Attempt& a = *run.mutable_latest();
    a.set_n(std::max<int64_t>(1, a.n()));
    a.set_state(run.state() == "running" ? "running" : "ended");
    a.set_phase("step");
    a.set_started_at(1'771'948'126'000);  // a minute before the manual clock starts
    a.set_steps_observed(steps);
    a.set_last_step(steps - 1);
    a.set_last_loss(loss);
    a.set_tail50_tok_per_sec(tok_per_sec);
    a.set_tail50_dt_ms(dt_ms);
  }

 private:
  template <class T>
  grpc::Status answer(T* to, const T& from) {
    if (failure.ok()) *to = from;
    return failure;
  }
  using Context = grpc::ServerContext;
  using Guard = std::lock_guard<std::mutex>;

  grpc::Status Info(Context*, const v1::InfoRequest*, v1::InfoResponse* r) override {
    Guard guard(mutex);
    return answer(r, info);
  }
  grpc::Status Plan(Context*, const v1::PlanRequest* q, v1::PlanResponse* r) override {
    Guard guard(mutex);
    last_plan = *q;
    return answer(r, plan);
  }
  grpc::Status Enqueue(Context*, const v1::EnqueueRequest* q, v1::EnqueueResponse* r) override {
    Guard guard(mutex);
    last_enqueue = *q;
    return answer(r, enqueued);
  }
  grpc::Status ListRuns(Context*, const v1::ListRunsRequest* q, v1::ListRunsResponse* r) override {
    Guard guard(mutex);
    last_list = *q;
    if (!failure.ok()) return failure;
    for (const std::string& name : q->selector().names())
      if (!find(name)) return {grpc::NOT_FOUND, "no run is named '" + name + "'; `assay ls` lists them"};
    for (const v1::Run& run : runs.runs()) {
      const auto& names = q->selector().names();
      const bool named = names.empty() || std::find(names.begin(), names.end(), run.name()) != names.end();
      if (named && (q->selector().tag().empty() || q->selector().tag() == run.tag())) *r->add_runs() = run;
    }
    r->set_total(runs.total());
    r->set_queue_held(runs.queue_held());
    return grpc::Status::OK;
  }
  grpc::Status GetRun(Context*, const v1::GetRunRequest* q, v1::Run* r) override {
    Guard guard(mutex);
    const v1::Run* run = find(q->name());
    if (!run) return {grpc::NOT_FOUND, "no run is named '" + q->name() + "'; `assay ls` lists them"};
    return answer(r, *run);
  }
  grpc::Status Retry(Context*, const v1::RetryRequest* q, v1::ChangeResponse* r) override {
    Guard guard(mutex);
    last_retry = *q;
    return answer(r, change);
  }
  grpc::Status Cancel(Context*, const v1::CancelRequest* q, v1::ChangeResponse* r) override {
    Guard guard(mutex);
    last_cancel = *q;
    return answer(r, change);
  }
  grpc::Status Hold(Context*, const v1::HoldRequest* q, v1::ChangeResponse* r) override {
    Guard guard(mutex);
    last_hold = *q;
    return answer(r, change);
  }
  grpc::Status Release(Context*, const v1::HoldRequest* q, v1::ChangeResponse* r) override {
    Guard guard(mutex);
    last_hold = *q;
    released = true;
    return answer(r, change);
  }
  grpc::Status TailLog(Context*, const v1::TailLogRequest* q, v1::TailLogResponse* r) override {
    Guard guard(mutex);
    if (!failure.ok()) return failure;
    const int64_t size = static_cast<int64_t>(log.size());
    const int64_t from = q->offset() < 0 ? std::max<int64_t>(0, size + q->offset()) : std::min(q->offset(), size);
    r->set_data(log.substr(static_cast<size_t>(from), static_cast<size_t>(std::min(log_chunk, q->max_bytes()))));
    r->set_next_offset(from + static_cast<int64_t>(r->data().size()));
    r->set_size(size);
    r->set_live(log_live);
    r->set_attempt(q->attempt() ? q->attempt() : 2);
    return grpc::Status::OK;
  }
  grpc::Status QueryMetrics(Context*, const v1::QueryMetricsRequest* q, v1::QueryMetricsResponse* r) override {
    Guard guard(mutex);
    if (!failure.ok()) return failure;
    r->set_attempt(q->attempt() ? q->attempt() : 1);
    for (const v1::StepMetrics& m : steps) {
      if (m.step() < q->from_step()) continue;
      if (r->steps_size() == steps_per_page) {
        r->set_more(true);
        break;
      }
      *r->add_steps() = m;
    }
    return grpc::Status::OK;
  }
  grpc::Status GetReport(Context*, const v1::GetReportRequest* q, v1::GetReportResponse* r) override {
    Guard guard(mutex);
    last_report = *q;
    return answer(r, report);
  }
  grpc::Status ListDevices(Context*, const v1::ListDevicesRequest*, v1::ListDevicesResponse* r) override {
    Guard guard(mutex);
    return answer(r, devices);
  }
  grpc::Status Watch(Context*, const v1::WatchRequest* q, grpc::ServerWriter<v1::Event>* w) override {
    Guard guard(mutex);
    for (const v1::Event& event : events)
      if (event.id() > q->from_event_id()) w->Write(event);
    return failure;
  }
  grpc::Status Shutdown(Context*, const v1::ShutdownRequest* q, v1::ShutdownResponse*) override {
    Guard guard(mutex);
    stop_workers = q->stop_workers();
    return failure;
  }
  const v1::Run* find(const std::string& name) const {
    for (const v1::Run& run : runs.runs())
      if (run.name() == name || run.experiment() + "/" + run.tag() + "/" + run.name() == name) return &run;
    return nullptr;
  }
};

// A home with that daemon in it, and the command line pointed at it.
class CliTest : public testing::Test {
 protected:
  void start_daemon() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + *socket_path(home.path()), grpc::InsecureServerCredentials());
    builder.RegisterService(&fake);
    server = builder.BuildAndStart();
    ASSERT_NE(server, nullptr);
    ASSERT_EQ(::chmod(socket_path(home.path())->c_str(), 0600), 0);
    fake.info.set_version("0.1.0");
    fake.info.set_home(home.path());
    fake.info.set_pid(::getpid());
    fake.info.set_workers_connected(1);
  }
  void TearDown() override {
    if (server) server->Shutdown();
  }
  // Runs `assay --home <home> arguments...`; out and err hold what it wrote.
  ExitCode run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--home", home.path()});
    return run_as_given(std::move(arguments));
  }
  ExitCode run_as_given(std::vector<std::string> arguments) {
    std::ostringstream out_stream;
    std::ostringstream err_stream;
    Context context{.console = {.out = out_stream, .err = err_stream, .colour = colour, .width = width},
                    .clock = clock,
                    .pause =
                        [this](int64_t ms) {
                          clock.advance_ms(ms);
                          if (++pauses > 1000) throw std::runtime_error("the verb waits for ever");
                          if (on_pause) on_pause();
                        },
                    .become =
                        [this](const std::string& program, const std::vector<std::string>& args) {
                          became = program;
                          became_arguments = args;
                          return Error{ErrorCode::not_found, "cannot start " + program};
                        },
                    .programs = programs.path()};
    const ExitCode code = run_program(arguments, context);
    out = out_stream.str();
    err = err_stream.str();
    return code;
  }

  TempFolder home;
  TempFolder programs;
  FakeService fake;
  std::unique_ptr<grpc::Server> server;
  ManualClock clock;
  std::function<void()> on_pause;
  int pauses = 0;
  int width = 0;
  bool colour = false;
  std::string out;
  std::string err;
  std::string became;
  std::vector<std::string> became_arguments;
};

}  // namespace assay::test
