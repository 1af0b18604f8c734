// The whole daemon in this process: real gRPC on a Unix socket in a folder of its own, a worker that is only a client.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <future>
#include <set>

#include "base/file.h"
#include "base/limits.h"
#include "base/version.h"
#include "daemon/daemon.h"
#include "engine/data/shard.h"
#include "proto/queue.grpc.pb.h"
#include "proto/worker.grpc.pb.h"
#include "tests/support/step_values.h"
#include "tests/support/temp_folder.h"
#include "wire/convert.h"
#include "wire/step_columns.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr char spec_text[] = R"(
experiment = "svc"
[defaults]
backend = "cpu"
precision = "fp32"
execution = "eager"
model = {depth = 2, experts = 4, top_k = 2, vocab_size = 256, sequence_len = 64, d_model = 64, head_dim = 32}
train = {steps = 3, total_batch_tokens = 128, device_batch = 2, seed = 1}
data  = {path = "DATA"}
[matrix]
"train.matrix_lr" = [0.01, 0.02]
)";

class ServiceTest : public testing::Test {
 protected:
  ServiceTest() {
    EXPECT_TRUE(make_folders(folder_.file("data")).ok());
    EXPECT_TRUE(write_shard(folder_.file("data/x_train_000.bin"), std::vector<uint16_t>(4096, 7)).ok());
    start();
  }
  void start(bool allow_faults = false) {
    daemon_.reset();
    auto daemon = Daemon::start({.home = home(), .allow_faults = allow_faults}, clock_);
    ASSERT_TRUE(daemon.ok()) << daemon.error().message;
    daemon_ = std::move(*daemon);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(limits::message_bytes);
    channel_ = grpc::CreateCustomChannel("unix:" + socket(), grpc::InsecureChannelCredentials(), arguments);
    queue_ = v1::QueueService::NewStub(channel_);
    workers_ = v1::WorkerService::NewStub(channel_);
  }
  std::string home() const { return folder_.file("home"); }
  std::string socket() const { return home() + "/assayd.sock"; }

  template <class Request, class Response>
  grpc::Status call(grpc::Status (v1::QueueService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(limits::rpc_deadline_ms));
    return (queue_.get()->*method)(&context, request, response);
  }
  std::string spec(std::string more = {}) const {
    std::string text = spec_text + more;
    text.replace(text.find("DATA"), 4, folder_.file("data"));
    return text;
  }
  grpc::Status enqueue(const std::string& text, v1::EnqueueResponse* response, const std::string& id = "") {
    v1::EnqueueRequest request;
    request.set_spec_text(text);
    request.set_spec_file("svc.toml");
    request.set_base_folder(folder_.path());
    request.set_tag("t1");
    request.set_request_id(id);
    return call(&v1::QueueService::Stub::Enqueue, request, response);
  }
  // The whole list, its messages put together.
  grpc::Status list(const v1::ListRunsRequest& request, v1::ListRunsResponse* runs) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(limits::rpc_deadline_ms));
    auto reader = queue_->ListRuns(&context, request);
    v1::ListRunsResponse message;
    for (list_messages_ = 0; reader->Read(&message); ++list_messages_) runs->MergeFrom(message);
    return reader->Finish();
  }
  v1::ListRunsResponse list() {
    v1::ListRunsResponse runs;
    EXPECT_TRUE(list({}, &runs).ok());
    return runs;
  }

  TempFolder folder_;
  SystemClock clock_;
  int list_messages_ = 0;
  std::unique_ptr<Daemon> daemon_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::QueueService::Stub> queue_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
};

// A worker's stream, read and written by hand.
class Stream {
 public:
  explicit Stream(v1::WorkerService::Stub& stub) : stream_(stub.Session(&context_)) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(limits::rpc_deadline_ms));
  }
  void hello(const std::vector<std::pair<int64_t, int64_t>>& leases = {}) {
    Hello hello{.worker_id = "w", .host = "h", .boot_id = "b"};
    hello.devices.push_back({"cpu:h", DeviceKind::cpu, "a cpu", int64_t{8} << 30});
    for (const auto& [attempt, epoch] : leases) hello.leases.push_back({{attempt, epoch}, 0, ""});
    EXPECT_TRUE(stream_->Write(to_proto(hello)));
  }
  void write(const v1::WorkerMessage& message) { EXPECT_TRUE(stream_->Write(message)); }
  v1::DaemonMessage read() {
    v1::DaemonMessage message;
    EXPECT_TRUE(stream_->Read(&message));
    return message;
  }
  grpc::Status finish() {
    stream_->WritesDone();
    return end();
  }
  // Reads until the daemon ends it.
  grpc::Status end() {
    v1::DaemonMessage message;
    while (stream_->Read(&message)) {
    }
    return stream_->Finish();
  }
  void cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::DaemonMessage>> stream_;
};

v1::WorkerMessage event_of(const v1::Lease& lease, const std::string& kind, const std::string& log = "") {
  v1::WorkerMessage message;
  v1::AttemptEvent* event = message.mutable_event();
  event->set_attempt_id(lease.attempt_id());
  event->set_lease_epoch(lease.lease_epoch());
  event->set_kind(kind);
  event->set_log_path(log);
  event->set_resumed_from_step(-1);
  if (kind == "ended") {
    event->mutable_outcome()->set_result("completed");
    event->mutable_outcome()->set_reason("none");
  }
  return message;
}

StepMetrics sent_step(int64_t step) {
  StepMetrics metrics = some_step(step);
  metrics.dt_ms = 10;
  return metrics;
}
v1::WorkerMessage steps_of(const v1::Lease& lease, int64_t first_seq, int64_t n) {
  v1::WorkerMessage message;
  v1::MetricBatch* batch = message.mutable_metrics();
  batch->set_attempt_id(lease.attempt_id());
  batch->set_lease_epoch(lease.lease_epoch());
  batch->set_first_seq(first_seq);
  std::vector<StepMetrics> steps;
  for (int64_t i = 0; i < n; ++i) steps.push_back(sent_step(first_seq - 1 + i));
  to_proto(steps, *batch->mutable_columns());
  return message;
}

TEST_F(ServiceTest, TheSocketIsForItsOwnerAlone) {
  struct stat info {};
  ASSERT_EQ(::stat(socket().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat(home().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(ServiceTest, InfoSaysWhoServes) {
  v1::InfoResponse info;
  ASSERT_TRUE(call(&v1::QueueService::Stub::Info, v1::InfoRequest(), &info).ok());
  EXPECT_EQ(info.home(), home());
  EXPECT_EQ(info.pid(), ::getpid());
  EXPECT_FALSE(info.fault_injection());
  EXPECT_EQ(info.workers_connected(), 0);
}

TEST_F(ServiceTest, ARunFromItsSpecToItsReport) {
  v1::EnqueueResponse added;
  const grpc::Status status = enqueue(spec(), &added, "id-1");
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(added.added(), SizeIs(2));
  v1::EnqueueResponse again;
  ASSERT_TRUE(enqueue(spec(), &again, "id-1").ok());
  EXPECT_EQ(again.added_size(), 2);  // the same request: the same answer
  ASSERT_TRUE(enqueue(spec(), &again, "id-2").ok());
  EXPECT_EQ(again.already_there(), 2);

  Stream worker(*workers_);
  worker.hello();
  EXPECT_EQ(worker.read().welcome().heartbeat_ms(), limits::heartbeat_ms);
  const v1::DaemonMessage message = worker.read();
  ASSERT_TRUE(message.has_lease());
  const v1::Lease lease = message.lease();
  EXPECT_EQ(lease.run(), added.added(0));
  ASSERT_TRUE(make_folders(lease.folder()).ok());
  const std::string log = lease.folder() + "/trainer.log";
  std::ofstream(log) << "first line\nsecond line\n";

  worker.write(event_of(lease, "started", log));
  EXPECT_EQ(worker.read().event_ack().kind(), "started");
  worker.write(steps_of(lease, 1, 3));
  EXPECT_EQ(worker.read().ack().seq(), 3);

  v1::TailLogRequest tail;
  tail.set_name(lease.run());
  tail.set_offset(-12);
  v1::TailLogResponse text;
  ASSERT_TRUE(call(&v1::QueueService::Stub::TailLog, tail, &text).ok());
  EXPECT_EQ(text.data(), "second line\n");
  EXPECT_EQ(text.size(), 23);
  EXPECT_TRUE(text.live());

  worker.write(event_of(lease, "ended"));
  EXPECT_EQ(worker.read().event_ack().kind(), "ended");
  EXPECT_EQ(worker.read().lease().run(), added.added(1));  // the next one

  v1::GetRunRequest get;
  get.set_name("t1/" + lease.run());
  v1::Run run;
  ASSERT_TRUE(call(&v1::QueueService::Stub::GetRun, get, &run).ok());
  EXPECT_EQ(run.state(), "completed");
  ASSERT_EQ(run.attempts_size(), 1);
  EXPECT_EQ(run.attempts(0).steps_observed(), 3);
  EXPECT_THAT(run.config_toml(), HasSubstr("matrix_lr"));

  v1::QueryMetricsRequest query;
  query.set_name(lease.run());
  query.set_limit(2);
  v1::QueryMetricsResponse steps;
  ASSERT_TRUE(call(&v1::QueueService::Stub::QueryMetrics, query, &steps).ok());
  const auto received = from_proto(steps.columns());
  ASSERT_TRUE(received.ok()) << received.error().message;
  ASSERT_EQ(received->steps.size(), 2u);
  EXPECT_EQ(bits(received->steps[1]), bits(sent_step(1)));
  EXPECT_TRUE(steps.more());

  v1::GetReportResponse report;
  ASSERT_TRUE(call(&v1::QueueService::Stub::GetReport, v1::GetReportRequest(), &report).ok());
  ASSERT_EQ(report.files_size(), 3);
  EXPECT_THAT(report.files(0).content(), HasSubstr(lease.run()));

  v1::ListDevicesResponse devices;
  ASSERT_TRUE(call(&v1::QueueService::Stub::ListDevices, v1::ListDevicesRequest(), &devices).ok());
  ASSERT_EQ(devices.devices_size(), 1);
  EXPECT_EQ(devices.devices(0).state(), "busy");
  EXPECT_EQ(devices.devices(0).run(), added.added(1));

  // A plan knows now how long such a step takes.
  v1::PlanRequest plan;
  plan.set_spec_text(spec());
  plan.set_base_folder(folder_.path());
  plan.set_tag("t1");
  v1::PlanResponse planned;
  ASSERT_TRUE(call(&v1::QueueService::Stub::Plan, plan, &planned).ok());
  ASSERT_EQ(planned.runs_size(), 2);
  EXPECT_NEAR(planned.runs(0).estimated_seconds(), 0.03, 1e-9);
  EXPECT_TRUE(planned.runs(0).already_queued());
  EXPECT_GT(planned.runs(0).parameters(), 0);
  worker.cancel();
}

// What plan shows is what enqueue does: one function decides.
TEST_F(ServiceTest, PlanAndEnqueueAgree) {
  v1::EnqueueResponse added;
  const auto plan = [&](const std::string& text) {
    v1::PlanRequest request;
    request.set_spec_text(text);
    request.set_base_folder(folder_.path());
    request.set_tag("t1");
    v1::PlanResponse planned;
    EXPECT_TRUE(call(&v1::QueueService::Stub::Plan, request, &planned).ok());
    return planned;
  };
  EXPECT_EQ(plan(spec()).runs(0).device(), "cpu");
  EXPECT_EQ(plan(spec()).total_seconds(), 0) << "nothing like it has run";
  EXPECT_THAT(plan(spec()).notes(0), HasSubstr(folder_.file("data") + ": "));
  ASSERT_TRUE(enqueue(spec(), &added).ok());

  // Another priority and warm-up of all runs: the latter is another config.
  std::string changed = "priority = 5\n" + spec();
  v1::PlanResponse planned = plan(changed);
  ASSERT_EQ(planned.updated_size(), 1);
  EXPECT_EQ(planned.updated(0), "priority 0 -> 5 (2 waiting runs)");
  EXPECT_TRUE(planned.runs(0).already_queued());
  v1::EnqueueResponse updated;
  ASSERT_TRUE(enqueue(changed, &updated).ok());
  ASSERT_EQ(updated.updated_size(), 1);
  EXPECT_EQ(updated.updated(0), planned.updated(0));
  EXPECT_EQ(updated.already_there(), 2);
  EXPECT_EQ(list().runs(0).priority(), 5);

  const size_t at = changed.find("steps = ");
  ASSERT_NE(at, std::string::npos);
  changed.replace(at, 9, "steps = 7");
  planned = plan(changed);
  EXPECT_TRUE(planned.runs(0).conflict());
  EXPECT_TRUE(planned.runs(0).fits());
  EXPECT_THAT(planned.runs(0).problem(), HasSubstr("train.steps = 3 there and 7 here"));
  const grpc::Status refused = enqueue(changed, &added);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(refused.error_message(), HasSubstr(planned.runs(0).name() + ": " + planned.runs(0).problem()));
}

TEST_F(ServiceTest, NothingWrongIsQueued) {
  v1::EnqueueResponse added;
  const grpc::Status bad = enqueue(spec("precison = [\"fp32\"]\n"), &added);
  EXPECT_EQ(bad.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(bad.error_message(), HasSubstr("svc.toml:"));

  const grpc::Status faults = enqueue(spec("[[runs]]\nname = \"f\"\nfault = {kind = \"crash\", step = 1}\n"), &added);
  EXPECT_EQ(faults.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(faults.error_message(), testing::AllOf(HasSubstr("svc.toml: f: fault.kind = "),
                                                     HasSubstr("start assayd with --allow-fault-injection")));

  const grpc::Status gpu = enqueue(spec("[[runs]]\nname = \"g\"\nbackend = \"cuda\"\nprecision = \"bf16\"\n"), &added);
  EXPECT_THAT(gpu.error_message(), HasSubstr("g: backend: no worker has a GPU"));

  const grpc::Status data = enqueue(spec("[[runs]]\nname = \"d\"\ndata.path = \"/nowhere\"\n"), &added);
  EXPECT_THAT(data.error_message(), HasSubstr("d: data.path: "));
  EXPECT_THAT(data.error_message(), HasSubstr("/nowhere"));
  EXPECT_EQ(list().total(), 0);

  start(true);
  EXPECT_TRUE(enqueue(spec("[[runs]]\nname = \"f\"\nfault = {kind = \"crash\", step = 1}\n"), &added).ok());
  EXPECT_EQ(list().total(), 3);
}

TEST_F(ServiceTest, AnOversizedMessageIsRefused) {
  v1::EnqueueResponse added;
  EXPECT_EQ(enqueue(std::string(limits::message_bytes + 1, '#'), &added).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  const grpc::Status spec = enqueue(std::string(limits::spec_bytes + 1, '#'), &added);
  EXPECT_EQ(spec.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(spec.error_message(), HasSubstr("svc.toml"));
}

// One raw call: protobuf messages of the standard services are not part of this program.
std::string raw_call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(limits::rpc_deadline_ms));
  grpc::CompletionQueue done;
  grpc::ByteBuffer request, response;
  grpc::Slice empty("");
  request = grpc::ByteBuffer(&empty, 1);
  auto call = stub.PrepareUnaryCall(&context, method, request, &done);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  done.Next(&tag, &ok);
  if (!status.ok()) return "error: " + status.error_message();
  std::vector<grpc::Slice> slices;
  if (!response.Dump(&slices).ok()) return "error: no answer";
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

TEST_F(ServiceTest, HealthAndReflectionAreServed) {
  EXPECT_EQ(raw_call(channel_, "/grpc.health.v1.Health/Check"), std::string("\x08\x01"));  // status = SERVING
  grpc::ClientContext context;
  grpc::GenericStub stub(channel_);
  // A stream: that it is implemented at all shows in how it ends, OK and not UNIMPLEMENTED.
  grpc::CompletionQueue done;
  auto call = stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &done);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  ASSERT_TRUE(done.Next(&tag, &ok) && ok);
  call->WritesDone(nullptr);
  ASSERT_TRUE(done.Next(&tag, &ok) && ok);
  grpc::Status status;
  call->Finish(&status, nullptr);
  ASSERT_TRUE(done.Next(&tag, &ok) && ok);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ServiceTest, ErrorsKeepTheirMeaning) {
  v1::GetRunRequest get;
  get.set_name("nobody");
  v1::Run run;
  EXPECT_EQ(call(&v1::QueueService::Stub::GetRun, get, &run).error_code(), grpc::StatusCode::NOT_FOUND);
  v1::ListRunsRequest request;
  request.mutable_selector()->add_states("runing");
  v1::ListRunsResponse runs;
  const grpc::Status state = list(request, &runs);
  EXPECT_EQ(state.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(state.error_message(), HasSubstr("\"runing\" is no run state"));
}

TEST_F(ServiceTest, DevicesThatOthersUseAreListedWithTheirUsers) {
  Stream worker(*workers_);
  worker.write(to_proto(Hello{.worker_id = "w",
                              .devices = {{"GPU-a", DeviceKind::cuda, "a gpu", 1}},
                              .occupied = {{"GPU-a", "python3 (pid 7)"}}}));
  ASSERT_TRUE(worker.read().has_welcome());
  const auto listed = [&] {
    v1::ListDevicesResponse devices;
    EXPECT_TRUE(call(&v1::QueueService::Stub::ListDevices, v1::ListDevicesRequest(), &devices).ok());
    return devices.devices(0).state() + ": " + devices.devices(0).drained_by();
  };
  EXPECT_EQ(listed(), "drained: python3 (pid 7)");

  // A heartbeat has no answer; that to a word on an unknown attempt comes when the heartbeat has been stored.
  const auto heartbeat = [&](const std::string& user) {
    v1::WorkerMessage message;
    message.mutable_heartbeat();
    if (!user.empty()) {
      v1::OccupiedDevice* device = message.mutable_heartbeat()->add_occupied();
      device->set_device_id("GPU-a");
      device->set_by(user);
    }
    worker.write(message);
    v1::Lease unknown;
    unknown.set_attempt_id(99);
    worker.write(event_of(unknown, "started"));
    EXPECT_TRUE(worker.read().has_abandon());
  };
  heartbeat("julia (pid 8)");
  EXPECT_EQ(listed(), "drained: julia (pid 8)");
  heartbeat("");
  EXPECT_EQ(listed(), "free: ");
  worker.cancel();
}

TEST_F(ServiceTest, AStrangeWorkerIsRefused) {
  Stream no_hello(*workers_);
  v1::WorkerMessage heartbeat;
  heartbeat.mutable_heartbeat();
  no_hello.write(heartbeat);
  EXPECT_EQ(no_hello.finish().error_message(), "the first message must be a hello");

  Stream bad_device(*workers_);
  v1::WorkerMessage hello = to_proto(Hello{.worker_id = "w", .devices = {{.id = "d"}}});
  hello.mutable_hello()->mutable_devices(0)->set_kind("tpu");
  bad_device.write(hello);
  EXPECT_EQ(bad_device.finish().error_message(),
            "hello.devices[0].kind: \"tpu\" is no device kind; expected cpu or cuda");

  Stream bad_event(*workers_);
  bad_event.hello();
  bad_event.read();
  v1::WorkerMessage event;
  event.mutable_event()->set_kind("exploded");
  bad_event.write(event);
  EXPECT_EQ(bad_event.finish().error_message(),
            "event.kind: \"exploded\" is no attempt news; expected started, resumed, stopping, ended or refused");

  // Steps as the first version sent them are unknown fields: an answer that says "stored" would lose them.
  Stream old_worker(*workers_);
  old_worker.hello();
  old_worker.read();
  v1::WorkerMessage batch;
  batch.mutable_metrics()->set_first_seq(1);
  old_worker.write(batch);
  EXPECT_EQ(old_worker.finish().error_message(), "metrics.columns: are missing");

  Stream bad_steps(*workers_);
  bad_steps.hello();
  bad_steps.read();
  batch = steps_of(v1::Lease(), 1, 2);
  batch.mutable_metrics()->mutable_columns()->set_steps(3);
  bad_steps.write(batch);
  EXPECT_EQ(bad_steps.finish().error_message(), "steps: column \"step\" has 2 values for 3 steps");
}

TEST_F(ServiceTest, AWorkerOfAnotherProtocolIsRefusedInWords) {
  for (const int64_t protocol : {int64_t{0}, wire_protocol + 1}) {
    Stream worker(*workers_);
    v1::WorkerMessage hello = to_proto(Hello{.version = protocol == 0 ? "" : "9.9", .worker_id = "w"});
    hello.mutable_hello()->set_protocol(protocol);
    hello.mutable_hello()->add_devices()->set_kind("of another time");  // nothing more of it is read
    worker.write(hello);
    const grpc::Status status = worker.finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
    EXPECT_EQ(status.error_message(),
              protocol == 0
                  ? fmt::format("the worker (of a version before there were protocol numbers) speaks protocol "
                                "0, this daemon ({}) speaks protocol {}",
                                version(), wire_protocol)
                  : fmt::format("the worker (9.9) speaks protocol {}, this daemon ({}) speaks protocol {}", protocol,
                                version(), wire_protocol));
  }
  v1::ListDevicesResponse devices;
  EXPECT_TRUE(call(&v1::QueueService::Stub::ListDevices, v1::ListDevicesRequest(), &devices).ok());
  EXPECT_EQ(devices.devices_size(), 0);
  Stream same(*workers_);
  same.hello();
  const v1::DaemonMessage welcome = same.read();
  EXPECT_EQ(welcome.welcome().protocol(), wire_protocol);
  EXPECT_EQ(welcome.welcome().version(), version());
  same.cancel();
}

TEST_F(ServiceTest, AWorkerThatComesAgainIsToldWhyItsOlderSessionEnds) {
  Stream older(*workers_);
  older.hello();
  older.read();
  Stream newer(*workers_);
  newer.hello();
  newer.read();
  EXPECT_EQ(older.end().error_message(), "the worker has opened a newer session");
  newer.cancel();
}

TEST_F(ServiceTest, WhatAWorkerDoesNotUnderstandEndsNoSession) {
  Stream worker(*workers_);
  worker.hello();
  worker.read();
  worker.write(to_proto(Problem{"stop.reason: \"tired\" is no stop reason"}));
  worker.write(to_proto(Heartbeat{}));
  v1::EnqueueResponse added;
  ASSERT_TRUE(enqueue(spec(), &added).ok());
  EXPECT_TRUE(worker.read().has_lease());
  worker.cancel();
}

TEST_F(ServiceTest, StepsOfANewerWorkerAreStoredWithoutWhatIsNotKnown) {
  v1::EnqueueResponse added;
  ASSERT_TRUE(enqueue(spec(), &added, "id-1").ok());
  Stream worker(*workers_);
  worker.hello();
  worker.read();
  const v1::Lease lease = worker.read().lease();
  v1::WorkerMessage batch = steps_of(lease, 1, 2);
  v1::StepColumn* newer = batch.mutable_metrics()->mutable_columns()->add_columns();
  newer->set_name("zeal");
  newer->add_numbers(1);
  worker.write(batch);
  EXPECT_EQ(worker.read().ack().seq(), 2);
  v1::QueryMetricsRequest query;
  query.set_name(lease.run());
  v1::QueryMetricsResponse answer;
  ASSERT_TRUE(call(&v1::QueueService::Stub::QueryMetrics, query, &answer).ok());
  EXPECT_EQ(bits(from_proto(answer.columns())->steps.at(1)), bits(sent_step(1)));
}

TEST_F(ServiceTest, WatchTellsThePastAndTheFuture) {
  v1::EnqueueResponse added;
  ASSERT_TRUE(enqueue(spec(), &added).ok());
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.set_follow(true);
  auto events = queue_->Watch(&context, request);
  v1::Event event;
  std::vector<std::string> runs;
  while (runs.size() < 2 && events->Read(&event))
    if (event.kind() == "run_enqueued") runs.push_back(event.run());
  EXPECT_THAT(runs, ElementsAre(added.added(0), added.added(1)));
  EXPECT_EQ(event.tag(), "t1");

  v1::HoldRequest hold;
  v1::ChangeResponse change;
  ASSERT_TRUE(call(&v1::QueueService::Stub::Hold, hold, &change).ok());
  ASSERT_TRUE(events->Read(&event));
  EXPECT_EQ(event.kind(), "queue_held");
  context.TryCancel();
  while (events->Read(&event)) {
  }
  EXPECT_EQ(events->Finish().error_code(), grpc::StatusCode::CANCELLED);

  // From an id on, without waiting.
  grpc::ClientContext later;
  v1::WatchRequest from;
  from.set_from_event_id(event.id() - 1);
  auto rest = queue_->Watch(&later, from);
  ASSERT_TRUE(rest->Read(&event));
  EXPECT_EQ(event.kind(), "queue_held");
  EXPECT_FALSE(rest->Read(&event));
  EXPECT_TRUE(rest->Finish().ok());
}

// Two experiments of one tag: what names one of them means it alone, whatever is asked; the tag alone is refused.
TEST_F(ServiceTest, ATagMeansOneExperimentWhateverIsAsked) {
  v1::EnqueueResponse added, other;
  ASSERT_TRUE(enqueue(spec(), &added).ok());
  std::string text = spec();
  text.replace(text.find("svc"), 3, "second");
  ASSERT_TRUE(enqueue(text, &other).ok());
  using Stub = v1::QueueService::Stub;

  const auto all_answers = [&](const std::string& tag) {
    std::vector<grpc::Status> answers;
    v1::RunSelector selector;
    selector.set_tag(tag);
    v1::ListRunsRequest listing;
    *listing.mutable_selector() = selector;
    v1::ListRunsResponse runs;
    answers.push_back(list(listing, &runs));
    EXPECT_EQ(runs.runs_size(), answers.back().ok() ? 2 : 0);
    v1::ChangeResponse change;
    const auto note = [&](const grpc::Status& status) {
      answers.push_back(status);
      EXPECT_EQ(change.changed_size(), status.ok() ? 2 : 0);
      for (const std::string& name : change.changed()) EXPECT_THAT(name, testing::Not(HasSubstr("/")));
      change.Clear();
    };
    v1::HoldRequest hold;
    *hold.mutable_selector() = selector;
    note(call(&Stub::Hold, hold, &change));
    note(call(&Stub::Release, hold, &change));
    v1::CancelRequest cancel;
    *cancel.mutable_selector() = selector;
    note(call(&Stub::Cancel, cancel, &change));
    v1::RetryRequest retry;
    *retry.mutable_selector() = selector;
    note(call(&Stub::Retry, retry, &change));
    v1::GetReportRequest report;
    report.set_tag(tag);
    v1::GetReportResponse files;
    answers.push_back(call(&Stub::GetReport, report, &files));
    if (answers.back().ok()) {
      EXPECT_EQ(files.experiment(), "second");
      EXPECT_TRUE(files.tag_shared());
    }
    grpc::ClientContext context;
    v1::WatchRequest watch;
    watch.set_tag(tag);
    auto events = queue_->Watch(&context, watch);
    v1::Event event;
    while (events->Read(&event)) EXPECT_EQ(event.experiment(), "second");
    answers.push_back(events->Finish());
    return answers;
  };
  for (const grpc::Status& status : all_answers("second/t1")) EXPECT_TRUE(status.ok()) << status.error_message();
  for (const grpc::Status& status : all_answers("t1")) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(),
              "the tag \"t1\" means several experiments: second/t1, svc/t1; give the full name");
  }
  for (const grpc::Status& status : all_answers("secnod/t1")) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(status.error_message(), "no experiment has the tag \"secnod/t1\"; did you mean \"second/t1\"?");
  }
  // The spec that is enqueued again finds its own runs.
  v1::PlanRequest plan;
  plan.set_spec_text(spec());
  plan.set_base_folder(folder_.path());
  plan.set_tag("t1");
  v1::PlanResponse planned;
  ASSERT_TRUE(call(&Stub::Plan, plan, &planned).ok());
  EXPECT_TRUE(planned.runs(0).already_queued());
  // A change of several experiments answers with names that tell the runs apart.
  v1::CancelRequest cancel;
  cancel.set_all(true);
  v1::ChangeResponse change;
  ASSERT_TRUE(call(&Stub::Cancel, cancel, &change).ok());
  EXPECT_THAT(change.changed(),
              testing::UnorderedElementsAre("svc/t1/" + added.added(0), "svc/t1/" + added.added(1),
                                            "second/t1/" + other.added(0), "second/t1/" + other.added(1)));
}

TEST_F(ServiceTest, TheBaselineOfAReportIsARunOfIt) {
  v1::EnqueueResponse added;
  ASSERT_TRUE(enqueue(spec(), &added).ok());
  v1::GetReportRequest request;
  v1::GetReportResponse report;
  for (const std::string& name : {added.added(1), "t1/" + added.added(1), "svc/t1/" + added.added(1)}) {
    request.set_baseline(name);
    EXPECT_TRUE(call(&v1::QueueService::Stub::GetReport, request, &report).ok()) << name;
  }
  EXPECT_FALSE(report.tag_shared());
  request.set_baseline(added.added(1) + "x");
  const grpc::Status missing = call(&v1::QueueService::Stub::GetReport, request, &report);
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(missing.error_message(), HasSubstr("did you mean \"" + added.added(1) + "\"?"));
}

// More runs than any message holds: the list is whole, and a change whose answer would not fit is not made.
TEST_F(ServiceTest, ALongListIsWhole) {
  constexpr int experiments = 12, runs_each = 10'000;
  daemon_.reset();
  {
    auto store = RunStore::open(home() + "/queue.db", clock_);
    ASSERT_TRUE(store.ok()) << store.error().message;
    ExperimentSpec many;
    many.experiment = "many";
    for (int i = 0; i < runs_each; ++i) {
      PlannedRun run;
      run.name = std::to_string(i) + std::string(limits::name_chars - 5, 'x');
      run.cell_key = std::to_string(i);
      many.runs.push_back(run);
    }
    for (int e = 0; e < experiments; ++e)
      ASSERT_TRUE((*store)->insert_experiment(many, "t" + std::to_string(e), "").ok());
  }
  start();
  const v1::ListRunsResponse runs = list();
  ASSERT_EQ(runs.runs_size(), experiments * runs_each);
  EXPECT_EQ(runs.total(), experiments * runs_each);
  EXPECT_EQ(runs.by_state().at("queued"), experiments * runs_each);
  EXPECT_GT(list_messages_, 16);
  std::set<int64_t> ids;
  for (const v1::Run& run : runs.runs()) ids.insert(run.id());
  EXPECT_EQ(ids.size(), static_cast<size_t>(runs.runs_size()));

  v1::CancelRequest cancel;
  cancel.set_all(true);
  v1::ChangeResponse change;
  const grpc::Status refused = call(&v1::QueueService::Stub::Cancel, cancel, &change);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "these are 120000 runs, more than one answer can name; change them tag by tag");
  v1::ListRunsRequest first;
  first.set_limit(1);
  v1::ListRunsResponse one;
  ASSERT_TRUE(list(first, &one).ok());
  EXPECT_EQ(one.runs_size(), 1);
  EXPECT_EQ(one.by_state().at("queued"), experiments * runs_each) << "nothing was changed";
}

TEST_F(ServiceTest, ARestartedDaemonIsGivenItsWorkersBack) {
  v1::EnqueueResponse added;
  ASSERT_TRUE(enqueue(spec(), &added).ok());
  v1::Lease lease;
  {
    Stream worker(*workers_);
    worker.hello();
    worker.read();
    lease = worker.read().lease();
    worker.write(event_of(lease, "started"));
    worker.read();
    worker.write(steps_of(lease, 1, 2));
    worker.read();
    daemon_.reset();
    worker.finish();
  }
  start();
  Stream worker(*workers_);
  worker.hello({{lease.attempt_id(), lease.lease_epoch()}, {999, 999}});
  const v1::DaemonMessage welcome = worker.read();
  ASSERT_EQ(welcome.welcome().acks_size(), 1);
  EXPECT_EQ(welcome.welcome().acks(0).seq(), 2);
  EXPECT_EQ(worker.read().abandon().attempt_id(), 999);
  worker.write(steps_of(lease, 1, 3));  // with what is there already
  EXPECT_EQ(worker.read().ack().seq(), 3);
  worker.write(event_of(lease, "ended"));
  EXPECT_EQ(worker.read().event_ack().kind(), "ended");
  v1::GetRunRequest get;
  get.set_name(lease.run());
  v1::Run run;
  ASSERT_TRUE(call(&v1::QueueService::Stub::GetRun, get, &run).ok());
  EXPECT_EQ(run.latest().steps_observed(), 3);
  worker.cancel();
}

TEST_F(ServiceTest, AShutdownThatStopsWorkersWaitsForTheirRuns) {
  v1::EnqueueResponse added;
  ASSERT_TRUE(enqueue(spec(), &added).ok());
  Stream worker(*workers_);
  worker.hello();
  worker.read();
  const v1::Lease lease = worker.read().lease();
  v1::ShutdownRequest request;
  request.set_stop_workers(true);
  v1::ShutdownResponse response;
  ASSERT_TRUE(call(&v1::QueueService::Stub::Shutdown, request, &response).ok());
  auto stopped = std::async(std::launch::async, [&] { daemon_->stop(); });
  EXPECT_EQ(worker.read().stop().reason(), "worker_stopped");
  EXPECT_TRUE(worker.read().has_drain());
  v1::WorkerMessage ended = event_of(lease, "ended");
  ended.mutable_event()->mutable_outcome()->set_result("stopped");
  worker.write(ended);
  EXPECT_EQ(worker.read().event_ack().kind(), "ended");
  stopped.wait();
  worker.finish();
  start();
  const v1::ListRunsResponse runs = list();
  ASSERT_EQ(runs.runs_size(), 2);
  for (const v1::Run& run : runs.runs()) EXPECT_EQ(run.state(), "queued");
}

TEST_F(ServiceTest, ASecondDaemonOnTheSameHomeIsRefusedByName) {
  const auto second = Daemon::start({.home = home()}, clock_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().message, "another daemon (pid " + std::to_string(::getpid()) + ") serves " + home() +
                                        "; stop it with: assay --home " + home() + " down");
}

}  // namespace
}  // namespace assay
