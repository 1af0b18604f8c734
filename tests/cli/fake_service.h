// A daemon that exists only in the test: answers are plain fields, requests are kept, the queue moves when a verb
// pauses.
#pragma once

#include <fcntl.h>
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
#include "base/output_file.h"
#include "cli/program.h"
#include "proto/queue.grpc.pb.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"
#include "wire/step_columns.h"

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
  std::vector<StepMetrics> steps;
  int64_t steps_per_page = 1000;
  std::string newer_column;      // sent with the steps, if not empty
  bool without_columns = false;  // as a daemon of the first version answers
  int64_t runs_not_sent = 0;     // a daemon that leaves runs out of its list
  int lists = 0;                 // calls of ListRuns
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
    return run;
  }
  // The list as the daemon answers it, for what shows one.
  v1::ListRunsResponse listed() const {
    v1::ListRunsResponse list = runs;
    list.set_total(runs.runs_size());
    for (const v1::Run& run : runs.runs()) ++(*list.mutable_by_state())[run.state()];
    return list;
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
  // In messages of two runs.
  grpc::Status ListRuns(Context*, const v1::ListRunsRequest* q, grpc::ServerWriter<v1::ListRunsResponse>* w) override {
    Guard guard(mutex);
    last_list = *q;
    ++lists;
    if (!failure.ok()) return failure;
    const v1::RunSelector& selector = q->selector();
    for (const std::string& name : selector.names())
      if (!find(name)) return {grpc::NOT_FOUND, "no run is named '" + name + "'; `assay ls` lists them"};
    v1::ListRunsResponse r;
    std::vector<const v1::Run*> selected;
    for (const v1::Run& run : runs.runs())
      if (is_selected(run, selector)) selected.push_back(&run);
    for (const v1::Run* run : selected) ++(*r.mutable_by_state())[run->state()];
    r.set_total(static_cast<int64_t>(selected.size()) + runs_not_sent);
    r.set_queue_held(runs.queue_held());
    r.set_last_event_id(events.empty() ? 0 : events.back().id());
    if (q->limit() > 0 && static_cast<size_t>(q->limit()) < selected.size())
      selected.resize(static_cast<size_t>(q->limit()));
    for (size_t i = 0; i < selected.size(); ++i) {
      *r.add_runs() = *selected[i];
      if (i % 2 == 0) continue;
      w->Write(r);
      r.Clear();
    }
    w->Write(r);
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
    if (without_columns) return grpc::Status::OK;
    std::vector<StepMetrics> page;
    for (const StepMetrics& m : steps)
      if (m.step >= q->from_step()) page.push_back(m);
    r->set_more(std::ssize(page) > steps_per_page);
    page.resize(std::min(page.size(), static_cast<size_t>(steps_per_page)));
    to_proto(page, *r->mutable_columns());
    if (!newer_column.empty()) r->mutable_columns()->add_columns()->set_name(newer_column);
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
      if (event.id() > q->from_event_id() && (q->tag().empty() || q->tag() == event.tag())) w->Write(event);
    return failure;
  }
  grpc::Status Shutdown(Context*, const v1::ShutdownRequest* q, v1::ShutdownResponse*) override {
    Guard guard(mutex);
    stop_workers = q->stop_workers();
    return failure;
  }
  static bool is_named(const v1::Run& run, const std::string& name) {
    return run.name() == name || run.experiment() + "/" + run.tag() + "/" + run.name() == name;
  }
  const v1::Run* find(const std::string& name) const {
    for (const v1::Run& run : runs.runs())
      if (is_named(run, name)) return &run;
    return nullptr;
  }
  static bool is_selected(const v1::Run& run, const v1::RunSelector& selector) {
    const auto among = [](const auto& list, auto is) {
      return list.empty() || std::find_if(list.begin(), list.end(), is) != list.end();
    };
    const std::string& tag = selector.tag();
    return among(selector.names(), [&](const std::string& name) { return is_named(run, name); }) &&
           among(selector.states(), [&](const std::string& state) { return state == run.state(); }) &&
           among(selector.ids(), [&](int64_t id) { return id == run.id(); }) &&
           (tag.empty() || tag == run.tag() || tag == run.experiment() + "/" + run.tag());
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
    const ExitCode code = run_writing(out_stream, arguments);
    out = out_stream.str();
    return code;
  }
  // As run(), with a file as standard output.
  ExitCode run_into(const std::string& path, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--home", home.path()});
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    FdStream out_stream(fd.get());
    return run_writing(out_stream, arguments);
  }
  ExitCode run_writing(std::ostream& out_stream, const std::vector<std::string>& arguments) {
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
