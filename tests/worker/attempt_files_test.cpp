#include "worker/attempt/attempt_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/limits.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

AttemptOutcome failed_outcome() {
  AttemptOutcome o;
  o.result = AttemptResult::failed;
  o.reason = FailureReason::non_finite;
  o.error = "loss is NaN\nat step 7 \"quoted\" \xC3\xA9";
  o.operation = "cross_entropy";
  o.tensor = "logits";
  o.step = 7;
  o.exit_code = 3;
  o.signal = 0;
  o.peak_mem_mib = 123.5;
  o.log_tail = "step 6\nstep 7\n";
  return o;
}

void expect_equal(const AttemptOutcome& a, const AttemptOutcome& b) {
  EXPECT_EQ(a.result, b.result);
  EXPECT_EQ(a.reason, b.reason);
  EXPECT_EQ(a.error, b.error);
  EXPECT_EQ(a.operation, b.operation);
  EXPECT_EQ(a.tensor, b.tensor);
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.exit_code, b.exit_code);
  EXPECT_EQ(a.signal, b.signal);
  EXPECT_EQ(a.peak_mem_mib, b.peak_mem_mib);
  EXPECT_EQ(a.log_tail, b.log_tail);
}

LeaseRecord lease_record() {
  LeaseRecord r;
  r.attempt_id = 42;
  r.lease_epoch = 9;
  r.attempt_key = "store/3/42/1771948186000";
  r.attempt = 2;
  r.run = "moe_fp8_experts_static_repeat2";
  r.timeout_s = 600;
  r.started_at_unix_ms = 1'771'948'186'123;
  r.stop_reason = StopReason::timeout;
  r.trainer = ProcessIdentity{1234, 987654321, "0f3c-boot"};
  r.outcome = failed_outcome();
  return r;
}

class AttemptFilesTest : public testing::Test {
 protected:
  TempFolder folder_;
  AttemptFolder attempt_{folder_.path()};
};

TEST_F(AttemptFilesTest, NothingIsThereBeforeItIsWritten) {
  EXPECT_FALSE(read_progress(attempt_)->has_value());
  ASSERT_TRUE(read_result(attempt_).ok());
  EXPECT_FALSE(read_result(attempt_)->has_value());
  ASSERT_TRUE(read_lease(attempt_).ok());
  EXPECT_FALSE(read_lease(attempt_)->has_value());
}

TEST_F(AttemptFilesTest, ProgressComesBack) {
  for (const Phase phase : {Phase::load, Phase::step, Phase::checkpoint}) {
    ASSERT_TRUE(write_progress(attempt_, {phase, 140}).ok());
    const auto progress = *read_progress(attempt_);
    ASSERT_TRUE(progress.has_value());
    EXPECT_EQ(progress->phase, phase);
    EXPECT_EQ(progress->resumed_from_step, 140);
  }
}

TEST_F(AttemptFilesTest, ResultComesBack) {
  ASSERT_TRUE(write_result(attempt_, failed_outcome()).ok());
  const auto result = read_result(attempt_);
  ASSERT_TRUE(result.ok() && result->has_value());
  expect_equal(**result, failed_outcome());
}

TEST_F(AttemptFilesTest, LeaseComesBackWithAndWithoutItsOptionalParts) {
  ASSERT_TRUE(write_lease(attempt_, lease_record()).ok());
  auto lease = read_lease(attempt_);
  ASSERT_TRUE(lease.ok() && lease->has_value());
  const LeaseRecord& r = **lease;
  EXPECT_EQ(r.attempt_id, 42);
  EXPECT_EQ(r.lease_epoch, 9);
  EXPECT_EQ(r.attempt_key, lease_record().attempt_key);
  EXPECT_EQ(r.attempt, 2);
  EXPECT_EQ(r.run, lease_record().run);
  EXPECT_EQ(r.timeout_s, 600);
  EXPECT_EQ(r.started_at_unix_ms, 1'771'948'186'123);
  EXPECT_EQ(r.stop_reason, StopReason::timeout);
  EXPECT_EQ(r.trainer, lease_record().trainer);
  ASSERT_TRUE(r.outcome.has_value());
  expect_equal(*r.outcome, failed_outcome());

  ASSERT_TRUE(write_lease(attempt_, LeaseRecord{}).ok());
  lease = read_lease(attempt_);
  ASSERT_TRUE(lease.ok() && lease->has_value());
  EXPECT_FALSE((*lease)->trainer.has_value());
  EXPECT_FALSE((*lease)->outcome.has_value());
}

TEST_F(AttemptFilesTest, UnknownKeysAreIgnored) {
  put_file(attempt_.progress(), R"({"phase": "load", "resumed_from_step": 3, "graphs_captured": [1, 2]})");
  EXPECT_EQ(read_progress(attempt_).value().value().resumed_from_step, 3);
}

TEST_F(AttemptFilesTest, EveryTruncationIsDamageNotAbsence) {
  ASSERT_TRUE(write_lease(attempt_, lease_record()).ok());
  const std::string whole = read_file(attempt_.lease()).value();
  for (size_t size = 0; size + 2 < whole.size(); ++size) {  // the last two bytes are "}\n"
    put_file(attempt_.lease(), whole.substr(0, size));
    const auto lease = read_lease(attempt_);
    ASSERT_FALSE(lease.ok()) << size;
    EXPECT_EQ(lease.error().code, ErrorCode::data_loss);
    EXPECT_THAT(lease.error().message, HasSubstr(attempt_.lease() + " is damaged: "));
  }
}

TEST_F(AttemptFilesTest, DamageIsNamed) {
  put_file(attempt_.progress(), "{");
  EXPECT_EQ(read_progress(attempt_).error().code, ErrorCode::data_loss);
  put_file(attempt_.progress(), R"({"phase": "evaluate", "resumed_from_step": -1})");
  EXPECT_THAT(read_progress(attempt_).error().message,
              HasSubstr("\"evaluate\" is no phase; expected load, step or checkpoint"));
  put_file(attempt_.result(), R"({"result": "exploded"})");
  EXPECT_THAT(read_result(attempt_).error().message,
              HasSubstr("result.json is damaged: result: \"exploded\" is no attempt result; expected none, completed"));
  put_file(attempt_.result(), R"({"result": 3})");
  EXPECT_EQ(read_result(attempt_).error().code, ErrorCode::data_loss);
  put_file(attempt_.result(), "[]");
  EXPECT_EQ(read_result(attempt_).error().code, ErrorCode::data_loss);
  put_file(attempt_.result(), std::string(limits::attempt_file_bytes + 1, ' '));
  EXPECT_FALSE(read_result(attempt_).ok());
}

TEST_F(AttemptFilesTest, HostileTextIsStoredWithinTheLimits) {
  LeaseRecord record = lease_record();
  record.outcome->error = std::string(1 << 20, '\x01');             // 6 bytes each in JSON
  record.outcome->log_tail = std::string(1 << 20, '\xFF') + "end";  // not UTF-8
  ASSERT_TRUE(write_lease(attempt_, record).ok());
  const auto lease = read_lease(attempt_);
  ASSERT_TRUE(lease.ok() && lease->has_value()) << lease.error().message;
  EXPECT_EQ((*lease)->outcome->error, record.outcome->error.substr(0, limits::error_chars));
  EXPECT_THAT((*lease)->outcome->log_tail, EndsWith("???end"));
}

TEST_F(AttemptFilesTest, WritingIntoNothingNamesThePath) {
  const AttemptFolder missing{folder_.file("missing")};
  const Status status = write_progress(missing, {});
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr(folder_.file("missing") + "/progress.json"));
}

}  // namespace
}  // namespace assay
