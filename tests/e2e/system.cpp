#include "tests/e2e/system.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "engine/data/shard.h"
#include "tests/support/paths.h"
#include "wire/step_columns.h"
#include "worker/attempt/attempt_files.h"

namespace assay {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::chrono::seconds patience(40);

// A pattern that a tiny model learns at once.
std::vector<uint16_t> tokens(size_t count) {
  std::vector<uint16_t> all(count);
  for (size_t i = 0; i < count; ++i) all[i] = static_cast<uint16_t>(i * 7 % 60);
  return all;
}

void prepare(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  context.set_wait_for_ready(true);
}

std::string read_or_empty(const std::string& path) {
  auto text = read_file(path);
  return text.ok() ? *text : "";
}

}  // namespace

System::System() {
  std::filesystem::create_directories(temp_.path() + "/data");
  EXPECT_TRUE(write_shard(temp_.path() + "/data/tiny_train_000001.bin", tokens(40'000)).ok());
  EXPECT_TRUE(write_shard(temp_.path() + "/data/tiny_val_000000.bin", tokens(8'000)).ok());
}

System::~System() {
  if (testing::Test::HasFailure()) std::fputs(logs().c_str(), stderr);
  if (daemon_ > 0) kill_daemon();  // first, so that it starts no new worker
  std::vector<pid_t> groups;
  if (const pid_t worker = worker_pid(); worker > 0) groups.push_back(worker);
  std::error_code ignored;
  for (std::filesystem::recursive_directory_iterator it(home() + "/runs", ignored), end; it != end;
       it.increment(ignored)) {
    if (it->path().filename() != "lease.json") continue;
    const auto lease = read_lease({it->path().parent_path().string()});
    if (lease.ok() && *lease && (*lease)->trainer && is_alive(*(*lease)->trainer))
      groups.push_back((*lease)->trainer->pid);
  }
  for (const pid_t group : groups) signal_group(group, SIGKILL);
}

// --- processes -----------------------------------------------------------------------------------------------------

void System::start_daemon() {
  const auto pid = spawn({.program = bin_dir() + "/assayd",
                          .arguments = {"--home", home(), "--allow-fault-injection"},
                          // A tiny model gains nothing from threads, and tests may share the machine.
                          .environment = {{"OMP_NUM_THREADS", "1"}, {"OPENBLAS_NUM_THREADS", "1"}},
                          .output_path = temp_.path() + "/assayd.out",
                          .new_session = true});
  ASSERT_TRUE(pid.ok()) << pid.error().message;
  daemon_ = *pid;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  queue_ = v1::QueueService::NewStub(
      grpc::CreateCustomChannel("unix:" + home() + "/assayd.sock", grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  prepare(context);
  v1::InfoResponse info;
  const grpc::Status status = queue_->Info(&context, {}, &info);
  ASSERT_TRUE(status.ok()) << status.error_message() << logs();
}

void System::kill_daemon() {
  ::kill(daemon_, SIGKILL);
  ::waitpid(daemon_, nullptr, 0);
  daemon_ = 0;
}

System::Ended System::run_second_daemon() {
  const std::string output = temp_.path() + "/second.out";
  const auto pid = spawn({.program = bin_dir() + "/assayd", .arguments = {"--home", home()}, .output_path = output});
  EXPECT_TRUE(pid.ok());
  std::optional<ExitStatus> status;
  wait("the second daemon to end", [&] { return (status = try_wait(*pid)).has_value(); });
  return {status.value_or(ExitStatus{}), read_or_empty(output)};
}

pid_t System::worker_pid() const {
  const std::string text = read_or_empty(home() + "/worker/lock");
  const pid_t pid = text.empty() ? 0 : static_cast<pid_t>(std::atoi(text.c_str()));
  return pid > 0 && identify_process(pid).ok() && is_alive(*identify_process(pid)) ? pid : 0;
}

void System::shut_down() {
  grpc::ClientContext context;
  prepare(context);
  v1::ShutdownRequest request;
  request.set_stop_workers(true);
  v1::ShutdownResponse response;
  const grpc::Status status = queue_->Shutdown(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::optional<ExitStatus> ended;
  wait("the daemon to end", [&] { return (ended = try_wait(daemon_)).has_value(); });
  EXPECT_EQ(ended->exit_code, 0);
  daemon_ = 0;
  wait("the worker to end", [&] { return worker_pid() == 0; });
}

void System::move_home() {
  const std::string old = home();
  home_name_ = "moved";
  std::filesystem::rename(old, home());
}

std::string System::log(const std::string& name) {
  grpc::ClientContext context;
  prepare(context);
  v1::TailLogRequest request;
  request.set_name(name);
  v1::TailLogResponse response;
  const grpc::Status status = queue_->TailLog(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.data();
}

// --- the queue -----------------------------------------------------------------------------------------------------

std::string System::one_run(const std::string& name, int64_t steps, const std::string& train,
                            const std::string& top) const {
  return fmt::format(R"([[runs]]
name = "{}"
backend = "cpu"
precision = "fp32"
execution = "eager"
model = {{depth = 1, head_dim = 16, experts = 2, top_k = 1, vocab_size = 64, sequence_len = 32}}
train = {{steps = {}, total_batch_tokens = 64, device_batch = 2, warmup_steps = 2{}{}}}
data = {{path = "{}/data"}}
{}
)",
                     name, steps, train.empty() ? "" : ", ", train, temp_.path(), top);
}

std::string System::spec(int64_t steps, const std::string& train, const std::string& top) const {
  return "experiment = \"e2e\"\n" + one_run("a", steps, train, top);
}

std::string System::spec_of_many(int runs, int64_t steps) const {
  std::string text = "experiment = \"e2e\"\n";
  for (int i = 0; i < runs; ++i) text += one_run(fmt::format("r{}", i), steps, fmt::format("seed = {}", i + 1), "");
  return text;
}

void System::enqueue(const std::string& spec_text) {
  grpc::ClientContext context;
  prepare(context);
  v1::EnqueueRequest request;
  request.set_spec_text(spec_text);
  request.set_spec_file("e2e.toml");
  request.set_base_folder(temp_.path());
  request.set_tag("t");
  request.set_request_id(fmt::format("enqueue-{}", SteadyClock::now().time_since_epoch().count()));
  v1::EnqueueResponse response;
  const grpc::Status status = queue_->Enqueue(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_GT(response.added_size(), 0);
}

v1::Run System::run(const std::string& name) {
  grpc::ClientContext context;
  prepare(context);
  v1::GetRunRequest request;
  request.set_name(name);
  v1::Run run;
  const grpc::Status status = queue_->GetRun(&context, request, &run);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return run;
}

std::vector<v1::Run> System::runs() {
  grpc::ClientContext context;
  prepare(context);
  std::vector<v1::Run> runs;
  auto reader = queue_->ListRuns(&context, {});
  v1::ListRunsResponse message;
  while (reader->Read(&message)) runs.insert(runs.end(), message.runs().begin(), message.runs().end());
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return runs;
}

std::vector<StepMetrics> System::metrics(int64_t attempt, const std::string& name) {
  std::vector<StepMetrics> all;
  bool more = true;
  while (more) {
    grpc::ClientContext context;
    prepare(context);
    v1::QueryMetricsRequest request;
    request.set_name(name);
    request.set_attempt(attempt);
    request.set_from_step(all.empty() ? 0 : all.back().step + 1);
    v1::QueryMetricsResponse response;
    const grpc::Status status = queue_->QueryMetrics(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    const auto received = from_proto(response.columns());
    EXPECT_TRUE(received.ok()) << received.error().message;
    if (!status.ok() || !received.ok()) return all;
    all.insert(all.end(), received->steps.begin(), received->steps.end());
    more = response.more();
  }
  return all;
}

std::vector<int64_t> System::steps(int64_t attempt, const std::string& name) {
  std::vector<int64_t> numbers;
  for (const StepMetrics& step : metrics(attempt, name)) numbers.push_back(step.step);
  return numbers;
}

void System::retry(const std::string& name) {
  grpc::ClientContext context;
  prepare(context);
  v1::RetryRequest request;
  request.mutable_selector()->add_names(name);
  request.set_request_id("retry-" + name);
  v1::ChangeResponse response;
  const grpc::Status status = queue_->Retry(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.changed_size(), 1) << response.DebugString();
}

void System::cancel(const std::string& name) {
  grpc::ClientContext context;
  prepare(context);
  v1::CancelRequest request;
  request.mutable_selector()->add_names(name);
  request.set_request_id("cancel-" + name);
  v1::ChangeResponse response;
  const grpc::Status status = queue_->Cancel(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.changed_size(), 1) << response.DebugString();
}

// --- waiting -------------------------------------------------------------------------------------------------------

void System::wait(const std::string& what, const std::function<bool()>& condition) {
  const auto deadline = SteadyClock::now() + patience;
  while (!condition()) {
    if (SteadyClock::now() > deadline || testing::Test::HasFatalFailure()) {
      ADD_FAILURE() << "waited for " << what;
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

v1::Run System::wait_state(const std::string& state, const std::string& name) {
  v1::Run last;
  wait(name + " to be " + state, [&] {
    last = run(name);
    return last.state() == state || last.state() == "failed" || last.state() == "completed" ||
           last.state() == "cancelled";
  });
  EXPECT_EQ(last.state(), state) << last.DebugString();
  return last;
}

v1::Run System::wait_step(int64_t step, const std::string& name) {
  v1::Run last;
  wait(fmt::format("step {} of {}", step, name), [&] {
    last = run(name);
    return last.has_latest() && last.latest().steps_observed() > 0 && last.latest().last_step() >= step;
  });
  EXPECT_EQ(last.state(), "running") << "too fast for this test: " << last.DebugString();
  return last;
}

// --- files ---------------------------------------------------------------------------------------------------------

std::string System::attempt_folder(const v1::Run& run) const {
  return std::filesystem::path(run.latest().log_path()).parent_path().string();
}

ProcessIdentity System::trainer(const v1::Run& run) const {
  const auto lease = read_lease({attempt_folder(run)});
  const bool known = lease.ok() && *lease && (*lease)->trainer;
  EXPECT_TRUE(known) << attempt_folder(run) << " names no trainer";
  return known ? *(*lease)->trainer : ProcessIdentity{};
}

std::string System::logs() const {
  return "\n--- assayd\n" + read_or_empty(temp_.path() + "/assayd.out") + "--- worker\n" +
         read_or_empty(home() + "/worker.log");
}

}  // namespace assay
