// How fast the queue is: prints one JSON object. Everything runs on real files in a fresh folder (--folder, so that the
// disk under test can be chosen), once against the queue itself and once through gRPC on the daemon's socket. Runs are
// empty: the worker here starts no trainer, it says "started" and "ended".
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "engine/data/shard.h"
#include "proto/queue.grpc.pb.h"
#include "proto/worker.grpc.pb.h"

namespace {

using namespace assay;
using Json = nlohmann::ordered_json;
using Steady = std::chrono::steady_clock;

double seconds_since(Steady::time_point start) {
  return std::chrono::duration<double>(Steady::now() - start).count();
}

void require(const Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "queue_bench: {}\n", status.error().message);
  std::exit(1);
}
void require(const grpc::Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "queue_bench: {}\n", status.error_message());
  std::exit(1);
}
template <class T>
T require(Result<T> result) {
  if (!result.ok()) require(Status(result.error()));
  return std::move(result).value();
}

double percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1))];
}

constexpr int gpus = 8;
constexpr int list_calls = 200;

// A matrix of 100 x (runs/100) cells.
std::string spec_text(const std::string& data, int64_t runs, const std::string& backend) {
  std::string text = fmt::format(R"(
experiment = "bench"
[defaults]
backend = "{}"
precision = "bf16"
model = {{depth = 2, experts = 4, top_k = 2, vocab_size = 256, sequence_len = 64, d_model = 128, head_dim = 64}}
train = {{steps = 1, total_batch_tokens = 128, device_batch = 2}}
data  = {{path = "{}"}}
[matrix]
"train.matrix_lr" = [)",
                                 backend, data);
  for (int64_t i = 0; i < 100; ++i) text += fmt::format("{:.4f}, ", 0.01 + 1e-4 * static_cast<double>(i));
  text += "]\n\"train.embedding_lr\" = [";
  for (int64_t i = 0; i < runs / 100; ++i) text += fmt::format("{:.4f}, ", 0.1 + 1e-3 * static_cast<double>(i));
  return text + "]\n";
}

// --- the queue itself -----------------------------------------------------------------------------------------------

// Keeps the leases it is given.
struct EmptyWorker final : WorkerLink {
  std::vector<LeaseOrder> leases;
  void send(WorkerOrder order) override {
    if (auto* lease = std::get_if<LeaseOrder>(&order)) leases.push_back(std::move(*lease));
  }
  void close(const std::string& why) override { require(Status(Error{ErrorCode::internal, why})); }
};

WorkerGreeting greeting_of(int devices) {
  WorkerGreeting greeting;
  greeting.worker = {"bench", "host", "boot", 1, 1, WorkerState::connected, 0};
  for (int i = 0; i < devices; ++i)
    greeting.devices.push_back({fmt::format("gpu{}", i), "bench", DeviceKind::cuda, "none", int64_t{80} << 30});
  return greeting;
}

struct Stores {
  SystemClock clock;
  std::unique_ptr<RunStore> runs;
  std::unique_ptr<MetricStore> metrics;
  std::unique_ptr<Queue> queue;
  explicit Stores(const std::string& folder) {
    runs = require(RunStore::open(folder + "/queue.db", clock));
    metrics = require(MetricStore::open(folder + "/metrics.db", runs->store_id()));
    queue = require(Queue::open(*runs, *metrics, clock, folder));
  }
};

StepReport steps_of(const LeaseRef& lease, int64_t first_step, int64_t steps) {
  StepReport report{lease, first_step + 1, {}};
  report.steps.resize(static_cast<size_t>(steps));
  for (StepMetrics& step : report.steps) step.step = first_step++;
  return report;
}

// Ends every lease that the worker holds, each after `steps` steps; the commit leases the next ones. Returns how many
// ended.
size_t end_all(Queue& queue, EmptyWorker& worker, bool started_apart, int64_t steps = 0) {
  const std::vector<LeaseOrder> leases = std::exchange(worker.leases, {});
  for (const LeaseOrder& lease : leases)
    queue.report(&worker, {lease.lease, "started", {}, lease.folder + "/trainer.log", -1, ""});
  if (started_apart) require(queue.commit());
  for (const LeaseOrder& lease : leases) {
    if (steps > 0) queue.steps(&worker, steps_of(lease.lease, 0, steps));
    AttemptReport report{lease.lease, "ended", {}, "", -1, ""};
    report.outcome.result = AttemptResult::completed;
    queue.report(&worker, report);
  }
  require(queue.commit());
  return leases.size();
}

void bench_queue(const std::string& folder, const ExperimentSpec& spec, Json& out) {
  Stores stores(folder);
  const auto start = Steady::now();
  require(stores.queue->enqueue(spec, "t", ""));
  require(stores.queue->commit());
  out["queue_enqueue_s"] = seconds_since(start);

  // One device: a commit ends one run and leases the next, with all the others waiting.
  auto one = std::make_shared<EmptyWorker>();
  stores.queue->greet(one, greeting_of(1));
  require(stores.queue->commit());
  std::vector<double> claims;
  for (int i = 0; i < 500; ++i) {
    const auto begin = Steady::now();
    end_all(*stores.queue, *one, false);
    claims.push_back(seconds_since(begin) * 1e3);
  }
  out["queue_claim_p50_ms"] = percentile(claims, 0.5);
  out["queue_claim_p99_ms"] = percentile(claims, 0.99);
  end_all(*stores.queue, *one, false);
  stores.queue->disconnected(one.get());

  auto many = std::make_shared<EmptyWorker>();
  WorkerGreeting greeting = greeting_of(gpus);
  for (const LeaseOrder& lease : one->leases) greeting.leases.push_back(lease.lease);
  many->leases = one->leases;
  stores.queue->greet(many, greeting);
  require(stores.queue->commit());
  for (const auto& [name, steps] : {std::pair("queue_runs_per_s", 0), {"queue_runs_of_10_steps_per_s", 10}}) {
    size_t runs = 0;
    const auto begin = Steady::now();
    while (runs < 2'000) runs += end_all(*stores.queue, *many, true, steps);
    out[name] = static_cast<double>(runs) / seconds_since(begin);
  }

  constexpr int64_t batches = 200;
  const LeaseRef lease = many->leases.front().lease;
  const auto intake = Steady::now();
  for (int64_t batch = 0; batch < batches; ++batch) {
    stores.queue->steps(many.get(), steps_of(lease, batch * limits::steps_per_message, limits::steps_per_message));
    require(stores.queue->commit());
  }
  out["queue_steps_per_s"] = static_cast<double>(batches * limits::steps_per_message) / seconds_since(intake);
}

// --- through the socket
// -----------------------------------------------------------------------------------------------

std::shared_ptr<grpc::Channel> connect(const std::string& home) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(limits::message_bytes);
  return grpc::CreateCustomChannel("unix:" + home + "/assayd.sock", grpc::InsecureChannelCredentials(), arguments);
}

void bench_list(v1::QueueService::Stub& queue, int64_t limit, const std::string& name, Json& out) {
  std::vector<double> times;
  for (int i = 0; i < list_calls; ++i) {
    grpc::ClientContext context;
    v1::ListRunsRequest request;
    request.set_limit(limit);
    v1::ListRunsResponse message;
    const auto start = Steady::now();
    auto reader = queue.ListRuns(&context, request);
    while (reader->Read(&message)) {
    }
    require(reader->Finish());
    times.push_back(seconds_since(start) * 1e3);
  }
  out[name + "_p50_ms"] = percentile(times, 0.5);
  out[name + "_p99_ms"] = percentile(times, 0.99);
}

v1::WorkerMessage event_of(const v1::Lease& lease, const char* kind) {
  v1::WorkerMessage message;
  v1::AttemptEvent* event = message.mutable_event();
  event->set_attempt_id(lease.attempt_id());
  event->set_lease_epoch(lease.lease_epoch());
  event->set_kind(kind);
  event->set_resumed_from_step(-1);
  if (std::string_view(kind) == "ended") event->mutable_outcome()->set_result("completed");
  return message;
}

void bench_session(const std::shared_ptr<grpc::Channel>& channel, Json& out) {
  auto stub = v1::WorkerService::NewStub(channel);
  grpc::ClientContext context;
  auto stream = stub->Session(&context);
  v1::WorkerMessage hello;
  hello.mutable_hello()->set_worker_id("bench");
  hello.mutable_hello()->set_host("host");
  for (int i = 0; i < gpus; ++i) {
    v1::Device* device = hello.mutable_hello()->add_devices();
    device->set_id(fmt::format("gpu{}", i));
    device->set_kind("cuda");
    device->set_memory_bytes(int64_t{80} << 30);
  }
  stream->Write(hello);
  v1::DaemonMessage message;
  int64_t ended = 0;
  v1::Lease last;
  const auto start = Steady::now();
  while (ended < 4'000 && stream->Read(&message)) {
    if (message.has_lease()) {
      last = message.lease();
      stream->Write(event_of(message.lease(), "started"));
      stream->Write(event_of(message.lease(), "ended"));
    }
    ended += message.has_event_ack() && message.event_ack().kind() == "ended";
  }
  out["socket_runs_per_s"] = static_cast<double>(ended) / seconds_since(start);

  // The next lease is left running and given steps.
  while (!message.has_lease() && stream->Read(&message)) {
  }
  const v1::Lease lease = message.lease();
  constexpr int64_t batches = 200;
  const auto intake = Steady::now();
  for (int64_t batch = 0; batch < batches; ++batch) {
    v1::WorkerMessage steps;
    v1::MetricBatch* metrics = steps.mutable_metrics();
    metrics->set_attempt_id(lease.attempt_id());
    metrics->set_lease_epoch(lease.lease_epoch());
    metrics->set_first_seq(batch * limits::steps_per_message + 1);
    for (int64_t i = 0; i < limits::steps_per_message; ++i) {
      v1::StepMetrics* step = metrics->add_steps();
      step->set_step(batch * limits::steps_per_message + i);
      step->set_loss(2.5);
      step->set_dt_ms(10);
    }
    stream->Write(steps);
  }
  while (stream->Read(&message))
    if (message.has_ack() && message.ack().seq() == batches * limits::steps_per_message) break;
  out["socket_steps_per_s"] = static_cast<double>(batches * limits::steps_per_message) / seconds_since(intake);
  context.TryCancel();
}

void bench_daemon(const std::string& folder, int64_t runs, Json& out) {
  const SystemClock clock;
  const std::string home = folder + "/home";
  auto daemon = require(Daemon::start({.home = home}, clock));
  const auto channel = connect(home);
  auto queue = v1::QueueService::NewStub(channel);
  {
    // Makes the GPUs known, so that the spec passes the checks.
    auto stub = v1::WorkerService::NewStub(channel);
    grpc::ClientContext context;
    auto stream = stub->Session(&context);
    v1::WorkerMessage hello;
    hello.mutable_hello()->set_worker_id("bench");
    v1::Device* device = hello.mutable_hello()->add_devices();
    device->set_id("gpu0");
    device->set_kind("cuda");
    device->set_memory_bytes(int64_t{80} << 30);
    stream->Write(hello);
    v1::DaemonMessage welcome;
    stream->Read(&welcome);
    stream->WritesDone();
    while (stream->Read(&welcome)) {
    }
    stream->Finish();
  }
  v1::EnqueueRequest request;
  request.set_spec_text(spec_text(folder, runs, "cuda"));
  request.set_spec_file("bench.toml");
  request.set_base_folder(folder);
  v1::EnqueueResponse response;
  grpc::ClientContext context;
  const auto start = Steady::now();
  require(queue->Enqueue(&context, request, &response));
  out["socket_enqueue_s"] = seconds_since(start);
  bench_list(*queue, 0, "socket_ls_all", out);
  bench_list(*queue, 50, "socket_ls_50", out);
  bench_session(channel, out);
  daemon.reset();
  const auto again = Steady::now();
  daemon = require(Daemon::start({.home = home}, clock));
  out["restart_s"] = seconds_since(again);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures the queue: enqueue, list, claim, whole empty runs, metric intake. Prints JSON.",
               "queue_bench");
  std::string parent = std::filesystem::temp_directory_path();
  int64_t runs = limits::runs_per_experiment;
  app.add_option("--folder", parent, "Where to put the databases (default: the temporary folder)");
  app.add_option("--runs", runs, "Runs to queue, a multiple of 100")->check(CLI::Range(6'000, 10'000));
  CLI11_PARSE(app, argc, argv);
  require(log::start("queue_bench", "/dev/null"));

  std::string folder = parent + "/queue_bench_XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) {
    fmt::print(stderr, "queue_bench: cannot make a folder in {}\n", parent);
    return 1;
  }
  require(write_shard(folder + "/x_train_000.bin", std::vector<uint16_t>(4096, 7)));
  Json out = {{"runs", runs}};
  const auto start = Steady::now();
  const SpecResult spec = parse_experiment(spec_text(folder, runs, "cuda"), "bench.toml", folder);
  if (!spec.ok()) require(Status(Error{ErrorCode::invalid_argument, spec.errors.front().to_string()}));
  out["parse_s"] = seconds_since(start);
  bench_queue(folder, spec.spec, out);
  bench_daemon(folder, runs, out);
  std::filesystem::remove_all(folder);
  fmt::print("{}\n", out.dump(2));
  return 0;
}
