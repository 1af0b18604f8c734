#include "daemon/lease_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "tests/support/manual_clock.h"

namespace assay {
namespace {

using testing::IsEmpty;

class LeaseManagerTest : public testing::Test {
 protected:
  // Heartbeats without progress for `ms`.
  void beat_for(int64_t ms) {
    for (; ms > 0; ms -= limits::heartbeat_ms) {
      clock_.advance_ms(std::min(ms, limits::heartbeat_ms));
      leases_.heard(1);
    }
  }
  AlarmKind only_alarm() {
    const auto alarms = leases_.tick();
    EXPECT_EQ(alarms.size(), 1u);
    cause_ = alarms.empty() ? "" : alarms[0].cause;
    return alarms.empty() ? AlarmKind::expired : alarms[0].kind;
  }

  ManualClock clock_;
  LeaseManager leases_{clock_};
  std::string cause_;
};

TEST_F(LeaseManagerTest, ExpiresOnceWhenNothingIsHeard) {
  leases_.watch(1, Phase::step, 0, std::nullopt);
  clock_.advance_ms(limits::lease_ms - 1);
  EXPECT_THAT(leases_.tick(), IsEmpty());
  EXPECT_EQ(*leases_.next_deadline(), clock_.monotonic_ms() + 1);
  clock_.advance_ms(1);
  EXPECT_EQ(only_alarm(), AlarmKind::expired);
  EXPECT_EQ(cause_, "nothing heard for 30 s");
  clock_.advance_ms(10 * limits::step_deadline_ms);
  EXPECT_THAT(leases_.tick(), IsEmpty());  // never stalled: nobody could know
  EXPECT_EQ(leases_.next_deadline(), std::nullopt);
}

TEST_F(LeaseManagerTest, HearingRenewsAndBringsBack) {
  leases_.watch(1, Phase::step, 0, std::nullopt);
  beat_for(3 * limits::lease_ms);
  EXPECT_THAT(leases_.tick(), IsEmpty());
  clock_.advance_ms(limits::lease_ms);
  EXPECT_EQ(only_alarm(), AlarmKind::expired);
  EXPECT_FALSE(leases_.heard(1));  // says that it had expired
  EXPECT_TRUE(leases_.heard(1));
  clock_.advance_ms(limits::lease_ms);
  EXPECT_EQ(only_alarm(), AlarmKind::expired);
}

TEST_F(LeaseManagerTest, EveryPhaseHasItsProgressDeadline) {
  for (const Phase phase : {Phase::load, Phase::step, Phase::checkpoint}) {
    leases_.watch(1, phase, 0, std::nullopt);
    beat_for(progress_deadline_ms(phase) - 1);
    EXPECT_THAT(leases_.tick(), IsEmpty()) << to_string(phase);
    beat_for(1);
    EXPECT_EQ(only_alarm(), AlarmKind::stalled) << to_string(phase);
    EXPECT_THAT(leases_.tick(), IsEmpty());
  }
  EXPECT_EQ(cause_, "no progress for 600 s in phase checkpoint");
}

TEST_F(LeaseManagerTest, AStepOrAPhaseIsProgress) {
  leases_.watch(1, Phase::load, 0, std::nullopt);
  beat_for(limits::load_deadline_ms - 1);
  leases_.progress(1, Phase::step, -1);
  beat_for(limits::step_deadline_ms - 1);
  leases_.progress(1, Phase::step, 0);
  beat_for(limits::step_deadline_ms - 1);
  leases_.progress(1, Phase::step, 0);  // the same again is none
  beat_for(1);
  EXPECT_EQ(only_alarm(), AlarmKind::stalled);
}

TEST_F(LeaseManagerTest, TheWallClockRunsFromTheStartOfTheTrainer) {
  leases_.watch(1, Phase::load, 60, std::nullopt);
  beat_for(100'000);
  EXPECT_THAT(leases_.tick(), IsEmpty());
  leases_.started(1);
  beat_for(59'999);
  leases_.started(1);  // told again: no second start
  EXPECT_THAT(leases_.tick(), IsEmpty());
  beat_for(1);
  EXPECT_EQ(only_alarm(), AlarmKind::timeout);
  EXPECT_EQ(cause_, "ran longer than its timeout of 60 s");
}

TEST_F(LeaseManagerTest, TimeBeforeARestartOfTheDaemonCounts) {
  leases_.watch(1, Phase::step, 60, 59'000);
  beat_for(1'000);
  EXPECT_EQ(only_alarm(), AlarmKind::timeout);
}

TEST_F(LeaseManagerTest, AStoppingAttemptCanOnlyExpire) {
  leases_.watch(1, Phase::step, 60, 0);
  leases_.stopping(1);
  beat_for(2 * limits::step_deadline_ms);
  EXPECT_THAT(leases_.tick(), IsEmpty());
  clock_.advance_ms(limits::lease_ms);
  EXPECT_EQ(only_alarm(), AlarmKind::expired);
}

TEST_F(LeaseManagerTest, AJumpOfTheWallClockIsNoTime) {
  leases_.watch(1, Phase::step, 60, 0);
  clock_.set_unix_ms(clock_.unix_ms() + 1'000'000'000);
  EXPECT_THAT(leases_.tick(), IsEmpty());
}

TEST_F(LeaseManagerTest, AForgottenLeaseIsSilent) {
  leases_.watch(1, Phase::step, 0, std::nullopt);
  leases_.forget(1);
  clock_.advance_ms(limits::lease_ms);
  EXPECT_THAT(leases_.tick(), IsEmpty());
  leases_.progress(1, Phase::step, 1);
  EXPECT_EQ(leases_.next_deadline(), std::nullopt);
}

}  // namespace
}  // namespace assay
