// Session against a real gRPC server on a Unix socket. Waiting is always for an event, with a deadline.
#include "worker/session.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include "base/limits.h"
#include "proto/worker.grpc.pb.h"
#include "tests/support/manual_clock.h"
#include "tests/support/step_values.h"
#include "tests/support/temp_folder.h"
#include "wire/step_columns.h"

namespace assay {
namespace {

using testing::SizeIs;

// The daemon's side of one stream at a time, driven by the test.
class FakeDaemon final : public v1::WorkerService::Service {
 public:
  explicit FakeDaemon(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeDaemon() override { stop(); }
  // Ends streams and server, as a daemon that is killed does.
  void stop() {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

  grpc::Status Session(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::DaemonMessage, v1::WorkerMessage>* stream) override {
    {
      const std::lock_guard lock(mutex_);
      stream_ = stream;
    }
    for (v1::WorkerMessage message; stream->Read(&message);) {
      const std::lock_guard lock(mutex_);
      received_.push_back(message);
      changed_.notify_all();
    }
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
    return grpc::Status::OK;
  }

  v1::WorkerMessage next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !received_.empty(); })) {
      ADD_FAILURE() << "nothing arrived at the daemon";
      return {};
    }
    v1::WorkerMessage message = received_.front();
    received_.pop_front();
    return message;
  }
  void send(const std::function<void(v1::DaemonMessage&)>& fill) {
    v1::DaemonMessage message;
    fill(message);
    const std::lock_guard lock(mutex_);
    ASSERT_NE(stream_, nullptr);
    ASSERT_TRUE(stream_->Write(message));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::WorkerMessage> received_;
  grpc::ServerReaderWriter<v1::DaemonMessage, v1::WorkerMessage>* stream_ = nullptr;
  std::unique_ptr<grpc::Server> server_;
};

class SessionTest : public testing::Test {
 protected:
  Session::Received wait() {
    pollfd fd{.fd = session_.wake_fd(), .events = POLLIN};
    EXPECT_EQ(::poll(&fd, 1, 20'000), 1) << "nothing arrived at the worker";
    return session_.receive();
  }
  // Messages until there are `count` of them.
  std::vector<DaemonMessage> messages(size_t count) {
    std::vector<DaemonMessage> all;
    while (all.size() < count && !HasFailure())
      for (DaemonMessage& message : wait().messages) all.push_back(std::move(message));
    return all;
  }
  void wait_closed() {
    while (!HasFailure() && !wait().closed) continue;
  }
  void connect() {
    session_.connect({.worker_id = "w"});
    daemon_->next();
  }

  TempFolder temp_;
  std::string socket_ = temp_.path() + "/d.sock";
  ManualClock clock_;
  std::unique_ptr<FakeDaemon> daemon_ = std::make_unique<FakeDaemon>(socket_);
  Session session_{socket_, clock_};
};

TEST_F(SessionTest, HelloComesFirstWithDevicesAndLeases) {
  session_.connect({.worker_id = "w-1",
                    .host = "host",
                    .boot_id = "boot",
                    .pid = 42,
                    .start_ticks = 77,
                    .devices = {{"cpu:host", "cpu", "CPU, 2 cores", 1 << 30}, {"GPU-a", "cuda", "H100", 80}},
                    .occupied = {{"GPU-a", "python3 (pid 7)"}},
                    .leases = {{{5, 6}, 9, "k"}}});
  const v1::WorkerMessage message = daemon_->next();
  ASSERT_TRUE(message.has_hello());
  const v1::Hello& hello = message.hello();
  EXPECT_EQ(hello.worker_id(), "w-1");
  EXPECT_EQ(hello.host(), "host");
  EXPECT_EQ(hello.boot_id(), "boot");
  EXPECT_EQ(hello.pid(), 42);
  EXPECT_EQ(hello.start_ticks(), 77);
  ASSERT_EQ(hello.devices_size(), 2);
  EXPECT_EQ(hello.devices(0).id(), "cpu:host");
  EXPECT_EQ(hello.devices(0).kind(), "cpu");
  EXPECT_EQ(hello.devices(0).name(), "CPU, 2 cores");
  EXPECT_EQ(hello.devices(0).memory_bytes(), 1 << 30);
  EXPECT_EQ(hello.devices(0).drained_by(), "");
  EXPECT_EQ(hello.devices(1).drained_by(), "python3 (pid 7)");
  ASSERT_EQ(hello.leases_size(), 1);
  EXPECT_EQ(hello.leases(0).attempt_id(), 5);
  EXPECT_EQ(hello.leases(0).lease_epoch(), 6);
  EXPECT_EQ(hello.leases(0).last_acked_seq(), 9);
  EXPECT_EQ(hello.leases(0).attempt_key(), "k");
}

TEST_F(SessionTest, EverythingTheWorkerSaysArrivesInOrder) {
  connect();
  StepMetrics step = some_step(3);
  step.val_loss = not_recorded<double>;
  session_.send(MetricBatch{{5, 6}, 4, {step}});
  session_.send(Heartbeat{{{{5, 6}, Phase::checkpoint, 3}}, {{"GPU-a", "python3 (pid 7)"}}});
  AttemptEvent event;
  event.lease = {5, 6};
  event.kind = AttemptNews::ended;
  event.outcome.emplace();
  event.outcome->result = AttemptResult::failed;
  event.outcome->reason = FailureReason::crashed;
  event.outcome->error = "killed by SIGSEGV";
  event.outcome->signal = 11;
  event.outcome->step = 4;
  event.outcome->log_tail = "bad byte \x80";
  session_.send(event);

  const v1::WorkerMessage metrics = daemon_->next();
  ASSERT_TRUE(metrics.has_metrics());
  EXPECT_EQ(metrics.metrics().first_seq(), 4);
  const auto steps = from_proto(metrics.metrics().columns());
  ASSERT_TRUE(steps.ok()) << steps.error().message;
  ASSERT_THAT(steps->steps, SizeIs(1));
  EXPECT_EQ(bits(steps->steps[0]), bits(step));
  const v1::WorkerMessage heartbeat = daemon_->next();
  ASSERT_TRUE(heartbeat.has_heartbeat());
  EXPECT_EQ(heartbeat.heartbeat().leases(0).phase(), "checkpoint");
  EXPECT_EQ(heartbeat.heartbeat().leases(0).last_step(), 3);
  ASSERT_EQ(heartbeat.heartbeat().occupied_size(), 1);
  EXPECT_EQ(heartbeat.heartbeat().occupied(0).device_id(), "GPU-a");
  EXPECT_EQ(heartbeat.heartbeat().occupied(0).by(), "python3 (pid 7)");
  const v1::WorkerMessage ended = daemon_->next();
  ASSERT_TRUE(ended.has_event());
  EXPECT_EQ(ended.event().kind(), "ended");
  EXPECT_EQ(ended.event().outcome().result(), "failed");
  EXPECT_EQ(ended.event().outcome().reason(), "crashed");
  EXPECT_EQ(ended.event().outcome().signal(), 11);
  EXPECT_EQ(ended.event().outcome().step(), 4);
  EXPECT_EQ(ended.event().outcome().log_tail(), "bad byte ?");
}

TEST_F(SessionTest, EverythingTheDaemonSaysIsUnderstood) {
  connect();
  const auto with_key = [](auto* message) {
    message->set_attempt_id(5);
    message->set_lease_epoch(6);
    return message;
  };
  daemon_->send([&](v1::DaemonMessage& m) {
    m.mutable_welcome()->set_heartbeat_ms(1234);
    with_key(m.mutable_welcome()->add_acks())->set_seq(8);
  });
  daemon_->send([&](v1::DaemonMessage& m) {
    v1::Lease* lease = with_key(m.mutable_lease());
    lease->set_attempt(2);
    lease->set_run("a");
    lease->set_config_toml("devices = 1");
    lease->set_folder("/f");
    lease->set_run_folder("/r");
    lease->set_timeout_s(60);
    lease->add_device_ids("GPU-a");
    lease->set_attempt_key("k2");
    lease->add_earlier_keys("k1");
  });
  daemon_->send([&](v1::DaemonMessage& m) { with_key(m.mutable_ack())->set_seq(9); });
  daemon_->send([&](v1::DaemonMessage& m) { with_key(m.mutable_stop())->set_reason("stalled"); });
  daemon_->send([&](v1::DaemonMessage& m) { with_key(m.mutable_event_ack())->set_kind("ended"); });
  daemon_->send([&](v1::DaemonMessage&) {});  // a message of a newer daemon is skipped
  daemon_->send([&](v1::DaemonMessage& m) { with_key(m.mutable_abandon()); });
  daemon_->send([&](v1::DaemonMessage& m) { m.mutable_drain(); });

  const auto got = messages(7);
  ASSERT_THAT(got, SizeIs(7));
  const auto& welcome = std::get<WelcomeMessage>(got[0]);
  EXPECT_EQ(welcome.heartbeat_ms, 1234);
  ASSERT_THAT(welcome.stored, SizeIs(1));
  EXPECT_EQ(welcome.stored[0].lease, (LeaseKey{5, 6}));
  EXPECT_EQ(welcome.stored[0].seq, 8);
  const auto& lease = std::get<LeaseMessage>(got[1]);
  EXPECT_EQ(lease.lease, (LeaseKey{5, 6}));
  EXPECT_EQ(lease.attempt, 2);
  EXPECT_EQ(lease.run, "a");
  EXPECT_EQ(lease.config_toml, "devices = 1");
  EXPECT_EQ(lease.folder, "/f");
  EXPECT_EQ(lease.run_folder, "/r");
  EXPECT_EQ(lease.timeout_s, 60);
  EXPECT_EQ(lease.device_ids, std::vector<std::string>{"GPU-a"});
  EXPECT_EQ(lease.attempt_key, "k2");
  EXPECT_EQ(lease.earlier_keys, std::vector<std::string>{"k1"});
  EXPECT_EQ(std::get<MetricAckMessage>(got[2]).stored.seq, 9);
  EXPECT_EQ(std::get<StopMessage>(got[3]).reason, "stalled");
  EXPECT_EQ(std::get<EventAckMessage>(got[4]).kind, "ended");
  EXPECT_EQ(std::get<AbandonMessage>(got[5]).lease, (LeaseKey{5, 6}));
  EXPECT_TRUE(std::holds_alternative<DrainMessage>(got[6]));
}

TEST_F(SessionTest, ReconnectsAfterTheDaemonCameBack) {
  connect();
  EXPECT_EQ(session_.reconnect_in_ms(), INT64_MAX);
  daemon_->stop();
  wait_closed();
  EXPECT_EQ(session_.reconnect_in_ms(), limits::reconnect_min_ms);
  daemon_ = std::make_unique<FakeDaemon>(socket_);
  clock_.advance_ms(limits::reconnect_min_ms);
  EXPECT_EQ(session_.reconnect_in_ms(), 0);
  session_.connect({.worker_id = "again"});
  EXPECT_EQ(daemon_->next().hello().worker_id(), "again");
}

TEST_F(SessionTest, PausesGrowToTheirLimitAndAWelcomeResetsThem) {
  daemon_->stop();
  std::vector<int64_t> pauses;
  for (int i = 0; i < 7; ++i) {
    session_.connect({});
    wait_closed();
    pauses.push_back(session_.reconnect_in_ms());
    clock_.advance_ms(pauses.back());
  }
  EXPECT_THAT(pauses, testing::ElementsAre(100, 200, 400, 800, 1600, 2000, 2000));
  daemon_ = std::make_unique<FakeDaemon>(socket_);
  connect();
  daemon_->send([](v1::DaemonMessage& m) { m.mutable_welcome(); });
  messages(1);
  daemon_->stop();
  wait_closed();
  EXPECT_EQ(session_.reconnect_in_ms(), limits::reconnect_min_ms);
}

TEST_F(SessionTest, SendingWithoutAConnectionIsHarmless) {
  session_.send(AttemptEvent{});
  connect();
  session_.send(Heartbeat{});
  EXPECT_TRUE(daemon_->next().has_heartbeat()) << "what was sent before the connection is not sent on it";
}

}  // namespace
}  // namespace assay
