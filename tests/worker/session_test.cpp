// Session against a real gRPC server on a Unix socket. Waiting is always for an event, with a deadline.
#include "worker/session.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include "base/limits.h"
#include "base/version.h"
#include "proto/worker.grpc.pb.h"
#include "tests/support/manual_clock.h"
#include "tests/support/step_values.h"
#include "tests/support/temp_folder.h"
#include "wire/convert.h"

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
    if (!refuse.ok()) return refuse;
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

  grpc::Status refuse;  // what every session ends with; set before the first

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

TEST_F(SessionTest, EverythingTheWorkerSaysArrivesInOrder) {
  const Hello hello{.worker_id = "w-1",
                    .host = "host",
                    .devices = {{"GPU-a", DeviceKind::cuda, "H100", 80}},
                    .leases = {{{5, 6}, 9, "k"}}};
  session_.connect(hello);
  StepMetrics step = some_step(3);
  step.val_loss = not_recorded<double>;
  session_.send(MetricBatch{{5, 6}, 4, {step}});
  const Heartbeat heartbeat{{{{5, 6}, Phase::checkpoint, 3}}, {{"GPU-a", "python3 (pid 7)"}}};
  session_.send(heartbeat);
  AttemptEvent event{.lease = {5, 6}, .kind = AttemptNews::ended};
  event.outcome = {.result = AttemptResult::failed, .reason = FailureReason::crashed, .signal = 11};
  session_.send(event);

  const auto next = [&] {
    auto message = from_proto(daemon_->next());
    EXPECT_TRUE(message.ok()) << message.error().message;
    return message.ok() ? *message : WorkerMessage();
  };
  EXPECT_EQ(std::get<Hello>(next()), hello);
  const MetricBatch metrics = std::get<MetricBatch>(next());
  EXPECT_EQ(metrics.first_seq, 4);
  ASSERT_THAT(metrics.steps, SizeIs(1));
  EXPECT_EQ(bits(metrics.steps[0]), bits(step));
  EXPECT_EQ(std::get<Heartbeat>(next()), heartbeat);
  EXPECT_EQ(std::get<AttemptEvent>(next()).outcome, event.outcome);
}

TEST_F(SessionTest, EverythingTheDaemonSaysArrivesInOrder) {
  connect();
  const std::vector<DaemonMessage> said = {WelcomeMessage{1234, {{{5, 6}, 8}}}, MetricAckMessage{{{5, 6}, 9}},
                                           StopMessage{{5, 6}, StopReason::stalled},
                                           EventAckMessage{{5, 6}, AttemptNews::ended}, DrainMessage{}};
  for (const DaemonMessage& message : said) daemon_->send([&](v1::DaemonMessage& m) { m = to_proto(message); });
  EXPECT_EQ(messages(said.size()), said);
}

TEST_F(SessionTest, WhatIsNotUnderstoodIsLeftAsideAndTheDaemonIsTold) {
  connect();
  daemon_->send([](v1::DaemonMessage& m) { m = to_proto(WelcomeMessage{}); });
  daemon_->send([](v1::DaemonMessage& m) {
    m = to_proto(StopMessage{{5, 6}});
    m.mutable_stop()->set_reason("tired");
  });
  daemon_->send([](v1::DaemonMessage&) {});
  daemon_->send([](v1::DaemonMessage& m) { m = to_proto(DrainMessage{}); });
  const auto got = messages(2);
  ASSERT_THAT(got, SizeIs(2));
  EXPECT_TRUE(std::holds_alternative<DrainMessage>(got[1])) << "an unknown reason is no order to stop";
  EXPECT_EQ(daemon_->next().problem().message(),
            "stop.reason: \"tired\" is no stop reason; expected none, cancelled, stalled, timeout or worker_stopped");
  EXPECT_EQ(daemon_->next().problem().message(), "message: has no content that is known here");
}

TEST_F(SessionTest, ALeaseThatIsNotUnderstoodIsRefused) {
  connect();
  daemon_->send([](v1::DaemonMessage& m) { m = to_proto(WelcomeMessage{}); });
  daemon_->send([](v1::DaemonMessage& m) {
    m.mutable_lease()->set_attempt_id(5);
    m.mutable_lease()->set_lease_epoch(6);
  });
  EXPECT_EQ(daemon_->next().problem().message(), "lease.run: is missing");
  const auto refused = from_proto(daemon_->next());
  ASSERT_TRUE(refused.ok()) << refused.error().message;
  const auto& event = std::get<AttemptEvent>(*refused);
  EXPECT_EQ(event.lease, (LeaseKey{5, 6}));
  EXPECT_EQ(event.kind, AttemptNews::refused);
  EXPECT_EQ(event.message, "lease.run: is missing");
}

TEST_F(SessionTest, ADaemonOfAnotherProtocolIsLeftAlone) {
  connect();
  daemon_->send([](v1::DaemonMessage& m) {
    m = to_proto(WelcomeMessage{});
    m.mutable_welcome()->clear_protocol();
    m.mutable_welcome()->clear_version();
  });
  Session::Received received;
  while (!received.closed && !HasFailure()) received = wait();
  EXPECT_THAT(received.messages, testing::IsEmpty());
  EXPECT_EQ(received.other_protocol,
            fmt::format("the daemon (of a version before there were protocol numbers) speaks protocol 0, this worker "
                        "({}) speaks protocol {}",
                        version(), wire_protocol));
}

TEST_F(SessionTest, ADaemonThatRefusesTheProtocolIsLeftAlone) {
  daemon_->refuse = {grpc::StatusCode::UNIMPLEMENTED, "the worker speaks protocol 1, this daemon protocol 2"};
  session_.connect({.worker_id = "w"});
  Session::Received received;
  while (!received.closed && !HasFailure()) received = wait();
  EXPECT_EQ(received.other_protocol, "the worker speaks protocol 1, this daemon protocol 2");
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
  daemon_->send([](v1::DaemonMessage& m) { m = to_proto(WelcomeMessage{}); });
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
