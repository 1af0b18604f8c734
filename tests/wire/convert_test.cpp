// Every message there and back, over random content; and what is wrong with a message that is not as it should be.
#include "wire/convert.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "base/utf8.h"
#include "base/version.h"
#include "wire/fields.h"

namespace assay {
namespace {

using testing::HasSubstr;

// Fills the fields that each_field names with what is allowed and awkward.
class Random {
 public:
  explicit Random(unsigned seed) : generator_(seed) {}

  template <class T>
  T message() {
    T value;
    each_field(*this, value);
    return value;
  }
  int64_t below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(generator_); }

  void operator()(const char*, int64_t& value) { value = integer<int64_t>(); }
  void operator()(const char*, int& value) { value = integer<int>(); }
  void operator()(const char*, double& value) {
    constexpr double some[] = {0, -0.0, 1e308, -1e-310, 2.5, 1 / 3.0};
    value = some[below(std::size(some))];
  }
  template <WordEnum E>
  void operator()(const char*, E& value) {
    value = static_cast<E>(below(static_cast<int64_t>(words_of(E{}).size())));
  }
  void operator()(const char*, std::string& value, const Text& as) { value = text(as); }
  void operator()(const char*, std::vector<std::string>& values, const Text& as) {
    values.resize(static_cast<size_t>(below(4)));
    for (std::string& value : values) value = text(as);
  }
  template <class T>
  void operator()(const char*, std::optional<T>& value) {
    if (below(2) == 0) each_field(*this, value.emplace());
  }
  template <class T>
  void operator()(const char*, std::vector<T>& values) {
    values.resize(static_cast<size_t>(below(4)));
    for (T& value : values) each_field(*this, value);
  }
  void operator()(const char*, OccupiedDevices& devices) {
    for (int64_t n = below(3); n > 0; --n) {
      const auto device = message<OccupiedDevice>();
      devices[device.id] = device.by;
    }
  }

 private:
  template <class T>
  T integer() {
    constexpr T some[] = {0, 1, -1, 42, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
    return some[below(std::size(some))];
  }
  // Empty where that is allowed, short, or as long as may be; ASCII, UTF-8, or any bytes where they are for people.
  std::string text(const Text& as) {
    std::string value;
    const size_t length = static_cast<size_t>(below(3) == 0 ? static_cast<int64_t>(as.most) : below(20));
    const std::string piece = below(2) == 0 ? "a" : "\xE2\x82\xAC";
    while (value.size() + piece.size() <= length) value += piece;
    if (as.keep != Text::Keep::whole && below(3) == 0)
      for (char& c : value) c = static_cast<char>(below(256));
    if (value.empty() && !as.may_be_empty) value = "x";
    return value;
  }

  std::mt19937 generator_;
};

// What the other end gets of text: UTF-8.
class Repair {
 public:
  template <class T>
  void operator()(const char*, T&) {}
  void operator()(const char*, std::string& value, const Text&) { value = to_utf8(value); }
  template <class T>
  void operator()(const char*, std::optional<T>& value) {
    if (value) each_field(*this, *value);
  }
  template <class T>
  void operator()(const char*, std::vector<T>& values) {
    for (T& value : values) each_field(*this, value);
  }
  void operator()(const char*, std::vector<std::string>&, const Text&) {}
  void operator()(const char*, OccupiedDevices& devices) {
    for (auto& [id, by] : devices) by = to_utf8(by);
  }
};

template <class T, class Message, class Proto>
T there_and_back(const Message& message) {
  // Through the bytes: a string that is not UTF-8 does not survive them.
  Proto parsed;
  EXPECT_TRUE(parsed.ParseFromString(to_proto(message).SerializeAsString()));
  const auto back = from_proto(parsed);
  EXPECT_TRUE(back.ok()) << back.error().message;
  return back.ok() && std::holds_alternative<T>(*back) ? std::get<T>(*back) : T();
}
template <class T>
T from_worker(const T& message) {
  return there_and_back<T, WorkerMessage, v1::WorkerMessage>(message);
}
template <class T>
T from_daemon(const T& message) {
  return there_and_back<T, DaemonMessage, v1::DaemonMessage>(message);
}

constexpr unsigned rounds = 300;

template <class T>
T random_message(unsigned seed, T* repaired) {
  T message = Random(seed).message<T>();
  *repaired = message;
  Repair repair;
  each_field(repair, *repaired);
  return message;
}

TEST(WireConvert, WhatWorkersSayComesBackTheSame) {
  for (unsigned seed = 0; seed < rounds; ++seed) {
    Hello hello, expected_hello;
    hello = random_message(seed, &expected_hello);
    hello.protocol = expected_hello.protocol = wire_protocol;
    EXPECT_EQ(from_worker(hello), expected_hello) << seed;
    Heartbeat heartbeat, expected_heartbeat;
    heartbeat = random_message(seed, &expected_heartbeat);
    EXPECT_EQ(from_worker(heartbeat), expected_heartbeat) << seed;
    Problem problem, expected_problem;
    problem = random_message(seed, &expected_problem);
    EXPECT_EQ(from_worker(problem), expected_problem) << seed;

    AttemptEvent event, expected;
    event = random_message(seed, &expected);
    if (event.kind != AttemptNews::ended) {
      event.outcome.reset();
      expected.outcome.reset();
    } else if (!event.outcome || event.outcome->result == AttemptResult::none) {
      event.outcome = expected.outcome = AttemptOutcome{.result = AttemptResult::completed};
    }
    const AttemptEvent back = from_worker(event);
    EXPECT_EQ(back.lease, expected.lease) << seed;
    EXPECT_EQ(back.kind, expected.kind) << seed;
    EXPECT_EQ(back.outcome, expected.outcome) << seed;
    EXPECT_EQ(back.log_path, expected.log_path) << seed;
    EXPECT_EQ(back.resumed_from_step, expected.resumed_from_step) << seed;
    EXPECT_EQ(back.message, expected.message) << seed;
  }
}

TEST(WireConvert, WhatTheDaemonSaysComesBackTheSame) {
  const auto same = [](auto message, unsigned seed) {
    auto expected = message;
    message = random_message(seed, &expected);
    EXPECT_EQ(from_daemon(message), expected) << seed;
  };
  for (unsigned seed = 0; seed < rounds; ++seed) {
    WelcomeMessage welcome, expected_welcome;
    welcome = random_message(seed, &expected_welcome);
    welcome.protocol = expected_welcome.protocol = wire_protocol;
    EXPECT_EQ(from_daemon(welcome), expected_welcome) << seed;
    StopMessage stop, expected_stop;
    stop = random_message(seed, &expected_stop);
    if (stop.reason == StopReason::none) stop.reason = expected_stop.reason = StopReason::timeout;
    EXPECT_EQ(from_daemon(stop), expected_stop) << seed;
    same(LeaseMessage(), seed);
    same(MetricAckMessage(), seed);
    same(EventAckMessage(), seed);
    same(DrainMessage(), seed);
    same(AbandonMessage(), seed);
  }
}

TEST(WireConvert, StepsComeBackBitForBit) {
  std::mt19937_64 random(1);
  for (unsigned round = 0; round < rounds; ++round) {
    MetricBatch batch{{1, 2}, static_cast<int64_t>(random() >> 1) + 1, std::vector<StepMetrics>(random() % 4)};
    for (StepMetrics& step : batch.steps) {
      // Any bits: NaN with a payload, infinities, denormals. StepMetrics has no padding.
      uint64_t words[sizeof(StepMetrics) / 8];
      for (uint64_t& word : words) word = random();
      std::memcpy(&step, words, sizeof step);
      if (round % 2 == 0) step.val_loss = std::numeric_limits<double>::quiet_NaN();
    }
    const MetricBatch back = from_worker(batch);
    EXPECT_EQ(back.lease, batch.lease);
    EXPECT_EQ(back.first_seq, batch.first_seq);
    ASSERT_EQ(back.steps.size(), batch.steps.size());
    for (size_t i = 0; i < batch.steps.size(); ++i)
      EXPECT_EQ(std::memcmp(&back.steps[i], &batch.steps[i], sizeof(StepMetrics)), 0) << round;
  }
}

// A field that is in the proto file and not in each_field would never be told.
class Names {
 public:
  explicit Names(const google::protobuf::Descriptor& message) : message_(message) {}
  template <class... Arguments>
  void operator()(const char* name, Arguments&&...) {
    named_.insert(name);
  }
  template <class T>
  void expect_all(std::set<std::string> apart = {}) {
    T value;
    each_field(*this, value);
    named_.merge(apart);
    for (int i = 0; i < message_.field_count(); ++i)
      EXPECT_EQ(named_.erase(message_.field(i)->name()), 1u)
          << message_.full_name() << "." << message_.field(i)->name();
    EXPECT_TRUE(named_.empty()) << message_.full_name() << " has no " << *named_.begin();
  }

 private:
  const google::protobuf::Descriptor& message_;
  std::set<std::string> named_;
};

template <class T>
void expect_all_fields(const google::protobuf::Descriptor* message, const std::set<std::string>& apart = {}) {
  Names(*message).expect_all<T>(apart);
}

TEST(WireConvert, EveryFieldOfTheProtoFileIsConverted) {
  expect_all_fields<Hello>(v1::Hello::descriptor());
  expect_all_fields<DeviceInfo>(v1::HostDevice::descriptor());
  expect_all_fields<HeldLease>(v1::HeldLease::descriptor());
  expect_all_fields<OccupiedDevice>(v1::OccupiedDevice::descriptor());
  expect_all_fields<Heartbeat>(v1::Heartbeat::descriptor());
  expect_all_fields<LeaseStatus>(v1::LeaseStatus::descriptor());
  expect_all_fields<MetricBatch>(v1::MetricBatch::descriptor(), {"columns"});
  expect_all_fields<AttemptEvent>(v1::AttemptEvent::descriptor());
  expect_all_fields<AttemptOutcome>(v1::AttemptOutcome::descriptor());
  expect_all_fields<Problem>(v1::Problem::descriptor());
  expect_all_fields<WelcomeMessage>(v1::Welcome::descriptor());
  expect_all_fields<LeaseMessage>(v1::Lease::descriptor());
  expect_all_fields<MetricAckMessage>(v1::MetricAck::descriptor());
  expect_all_fields<StopMessage>(v1::Stop::descriptor());
  expect_all_fields<EventAckMessage>(v1::EventAck::descriptor());
  expect_all_fields<DrainMessage>(v1::Drain::descriptor());
  expect_all_fields<AbandonMessage>(v1::Abandon::descriptor());
}

// --- what is wrong ---------------------------------------------------------------------------------------------------

template <class Proto>
std::string problem_of(const Proto& message) {
  const auto read = from_proto(message);
  return read.ok() ? "nothing" : read.error().message;
}

AttemptEvent ended(AttemptOutcome outcome) {
  return {.lease = {1, 2}, .kind = AttemptNews::ended, .outcome = std::move(outcome)};
}

TEST(WireConvert, UnknownWordsAreNamedAndNeverGuessed) {
  v1::WorkerMessage event = to_proto(ended({.result = AttemptResult::failed}));
  event.mutable_event()->mutable_outcome()->set_reason("gremlins\n");
  EXPECT_THAT(problem_of(event),
              HasSubstr("event.outcome.reason: \"gremlins\\x0a\" is no failure reason; expected none"));
  event.mutable_event()->mutable_outcome()->set_reason("");
  EXPECT_THAT(problem_of(event), HasSubstr("event.outcome.reason: \"\" is no failure reason"));
  event.mutable_event()->set_kind("exploded");  // the first is told
  EXPECT_THAT(problem_of(event), HasSubstr("event.kind: \"exploded\" is no attempt news"));

  v1::WorkerMessage heartbeat = to_proto(Heartbeat{{{{1, 2}}, {{3, 4}}}, {}});
  heartbeat.mutable_heartbeat()->mutable_leases(1)->set_phase("sleep");
  EXPECT_THAT(problem_of(heartbeat), HasSubstr("heartbeat.leases[1].phase: \"sleep\" is no phase; expected load"));

  v1::DaemonMessage stop = to_proto(StopMessage{{1, 2}});
  stop.mutable_stop()->set_reason("tired");
  EXPECT_THAT(problem_of(stop), HasSubstr("stop.reason: \"tired\" is no stop reason"));
  stop.mutable_stop()->set_reason("none");
  EXPECT_EQ(problem_of(stop), "stop.reason: none is no reason");
  v1::DaemonMessage ack = to_proto(EventAckMessage{{1, 2}});
  ack.mutable_event_ack()->set_kind("");
  EXPECT_THAT(problem_of(ack), HasSubstr("event_ack.kind: \"\" is no attempt news"));
}

TEST(WireConvert, WhatIsMissingOrTooLongIsNamed) {
  EXPECT_EQ(problem_of(to_proto(Hello{})), "hello.worker_id: is missing");
  EXPECT_EQ(problem_of(to_proto(Hello{.worker_id = std::string(limits::name_chars + 1, 'w')})),
            "hello.worker_id: has 129 bytes; 128 at most");
  EXPECT_EQ(problem_of(to_proto(Hello{.worker_id = "w", .devices = {{.id = "a"}, {}}})),
            "hello.devices[1].id: is missing");
  EXPECT_EQ(problem_of(to_proto(MetricBatch{{1, 2}, 0, {}})), "metrics.first_seq: is less than 1");
  EXPECT_EQ(problem_of(to_proto(AttemptEvent{.kind = AttemptNews::ended})),
            "event.outcome: an attempt ended without one");
  EXPECT_EQ(problem_of(to_proto(ended({}))), "event.outcome.result: an attempt ended without one");
  AttemptEvent started{.kind = AttemptNews::started, .outcome = AttemptOutcome{}};
  EXPECT_EQ(problem_of(to_proto(started)), "event.outcome: is not for an attempt that is started");
  LeaseMessage lease = Random(1).message<LeaseMessage>();
  lease.earlier_keys = {"k", ""};  // "": checkpoints that name nobody, of a store that was migrated
  EXPECT_EQ(std::get<LeaseMessage>(from_proto(to_proto(lease)).value()).earlier_keys, lease.earlier_keys);
  lease.device_ids = {"d", ""};
  EXPECT_EQ(problem_of(to_proto(lease)), "lease.device_ids[1]: is missing");
  lease.device_ids = {"d"};
  lease.folder = std::string(limits::path_chars + 1, '/');  // cut, it would be another folder
  EXPECT_EQ(problem_of(to_proto(lease)), "lease.folder: has 4097 bytes; 4096 at most");
  EXPECT_EQ(problem_of(v1::WorkerMessage()), "message: has no content that is known here");
  EXPECT_EQ(problem_of(v1::DaemonMessage()), "message: has no content that is known here");
}

TEST(WireConvert, ProseIsCutToItsLimitInWholeCharacters) {
  std::string euros;  // three bytes each; neither limit is a multiple of that
  while (euros.size() < 3 * limits::error_chars) euros += "\xE2\x82\xAC";
  const AttemptOutcome sent{.result = AttemptResult::failed, .error = euros, .log_tail = "begin" + euros};
  const auto expect_cut = [](const AttemptOutcome& got) {
    EXPECT_EQ(got.error.size(), limits::error_chars - limits::error_chars % 3);
    EXPECT_EQ(got.log_tail.size(), limits::log_tail_bytes - limits::log_tail_bytes % 3);
    EXPECT_TRUE(is_utf8(got.error) && is_utf8(got.log_tail));
  };
  expect_cut(*from_worker(ended(sent)).outcome);
  // Whoever does not cut is cut by the receiver.
  v1::WorkerMessage message = to_proto(ended({.result = AttemptResult::failed}));
  message.mutable_event()->mutable_outcome()->set_error(sent.error);
  message.mutable_event()->mutable_outcome()->set_log_tail(sent.log_tail);
  expect_cut(*std::get<AttemptEvent>(*from_proto(message)).outcome);
}

TEST(WireConvert, AnotherProtocolIsToldApartFromAnythingElse) {
  v1::WorkerMessage hello = to_proto(Hello{.version = "7.0", .worker_id = "w"});
  hello.mutable_hello()->set_protocol(wire_protocol + 1);
  const auto refused = from_proto(hello);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::failed_precondition);
  EXPECT_EQ(refused.error().message, "the worker (7.0) speaks protocol " + std::to_string(wire_protocol + 1) +
                                         ", this daemon (" + version() + ") speaks protocol " +
                                         std::to_string(wire_protocol));
  v1::DaemonMessage welcome = to_proto(WelcomeMessage{});
  welcome.mutable_welcome()->clear_protocol();
  EXPECT_EQ(from_proto(welcome).error().code, ErrorCode::failed_precondition);
  EXPECT_EQ(from_proto(to_proto(StopMessage{{1, 2}, StopReason::none})).error().code, ErrorCode::invalid_argument);
}

// Parsed or not, random bytes are an error or a message, and never anything else.
TEST(WireConvert, DamagedBytesGiveErrorsOrMessages) {
  std::mt19937 random(7);
  int read = 0;
  for (unsigned seed = 0; seed < 3'000; ++seed) {
    std::string bytes = to_proto(Random(seed).message<LeaseMessage>()).SerializeAsString();
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    v1::DaemonMessage message;
    if (!message.ParseFromString(bytes)) continue;
    const auto got = from_proto(message);
    if (got.ok())
      ++read;
    else
      EXPECT_TRUE(is_utf8(got.error().message) && !got.error().message.empty());
  }
  EXPECT_GT(read, 0);
}

}  // namespace
}  // namespace assay
