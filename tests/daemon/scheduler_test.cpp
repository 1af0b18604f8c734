#include "daemon/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

namespace assay {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

WorkerSlots worker(const std::string& id, int gpus, bool cpu = true) {
  WorkerSlots slots{id, {}};
  if (cpu) slots.devices.push_back({"cpu:" + id, DeviceKind::cpu, true});
  for (int i = 0; i < gpus; ++i) slots.devices.push_back({id + "-gpu" + std::to_string(i), DeviceKind::cuda, true});
  return slots;
}

std::vector<int64_t> started(const Schedule& plan) {
  std::vector<int64_t> ids;
  for (const Assignment& assignment : plan.assignments) ids.push_back(assignment.run_id);
  return ids;
}

TEST(Scheduler, TakesRunsInOrderUntilDevicesAreGone) {
  const std::vector<WaitingRun> runs = {{3, 1, Backend::cpu}, {1, 1, Backend::cpu}, {2, 1, Backend::cpu}};
  const Schedule plan = schedule(runs, {worker("a", 0), worker("b", 0)}, false);
  EXPECT_THAT(started(plan), ElementsAre(3, 1));
  EXPECT_THAT(plan.assignments[0].device_ids, ElementsAre("cpu:a"));
  EXPECT_THAT(plan.assignments[1].device_ids, ElementsAre("cpu:b"));
  EXPECT_FALSE(plan.devices_left);
}

TEST(Scheduler, ABusyCpuTakesNoSecondRun) {
  WorkerSlots busy = worker("a", 0);
  busy.devices[0].free = false;
  EXPECT_THAT(started(schedule(std::vector<WaitingRun>{{1, 1, Backend::cpu}}, {busy}, false)), IsEmpty());
}

TEST(Scheduler, AHeldQueueStartsNothing) {
  EXPECT_THAT(started(schedule(std::vector<WaitingRun>{{1, 1, Backend::cpu}}, {worker("a", 2)}, true)), IsEmpty());
}

TEST(Scheduler, BackendChoosesTheKindOfDevice) {
  const std::vector<WaitingRun> runs = {{1, 1, Backend::cuda}, {2, 1, Backend::automatic}, {3, 1, Backend::cpu}};
  const Schedule gpus = schedule(runs, {worker("a", 2)}, false);
  EXPECT_THAT(gpus.assignments[0].device_ids, ElementsAre("a-gpu0"));
  EXPECT_THAT(gpus.assignments[1].device_ids, ElementsAre("a-gpu1"));
  EXPECT_THAT(gpus.assignments[2].device_ids, ElementsAre("cpu:a"));
  // Without a GPU anywhere, automatic means the CPU, and a cuda run waits.
  const Schedule cpus = schedule(runs, {worker("a", 0)}, false);
  EXPECT_THAT(started(cpus), ElementsAre(2));
}

TEST(Scheduler, AutomaticWaitsForABusyGpuRatherThanTakeTheCpu) {
  WorkerSlots busy = worker("a", 1);
  busy.devices[1].free = false;
  const Schedule plan = schedule(std::vector<WaitingRun>{{1, 1, Backend::automatic}}, {busy}, false);
  EXPECT_THAT(started(plan), IsEmpty());
  EXPECT_TRUE(plan.devices_left);  // the CPU, for a run that asks for it
}

TEST(Scheduler, DevicesAreOfOneWorkerAndTakenTogetherOrNotAtAll) {
  const std::vector<WaitingRun> runs = {{1, 3, Backend::cuda}};
  EXPECT_THAT(started(schedule(runs, {worker("a", 2), worker("b", 2)}, false)), IsEmpty());
  const Schedule plan = schedule(runs, {worker("a", 2), worker("b", 4)}, false);
  ASSERT_THAT(started(plan), ElementsAre(1));
  EXPECT_THAT(plan.assignments[0].device_ids, ElementsAre("b-gpu0", "b-gpu1", "b-gpu2"));
}

TEST(Scheduler, ALargeRunReservesSoThatSmallOnesCannotStarveIt) {
  WorkerSlots a = worker("a", 4, false);
  a.devices[0].free = false;  // a small run of before
  const std::vector<WaitingRun> runs = {{1, 4, Backend::cuda}, {2, 1, Backend::cuda}};
  const Schedule waits = schedule(runs, {a}, false);
  EXPECT_THAT(started(waits), IsEmpty());
  EXPECT_FALSE(waits.devices_left);
  // Another worker's devices are not reserved.
  EXPECT_THAT(started(schedule(runs, {a, worker("b", 1, false)}, false)), ElementsAre(2));
  a.devices[0].free = true;
  EXPECT_THAT(started(schedule(runs, {a}, false)), ElementsAre(1));
}

TEST(Scheduler, ARunThatFitsNoWorkerBlocksNobody) {
  const std::vector<WaitingRun> runs = {{1, 8, Backend::cuda}, {2, 1, Backend::cuda}};
  EXPECT_THAT(started(schedule(runs, {worker("a", 2)}, false)), ElementsAre(2));
}

// A large run at the head of an endless queue of small ones starts after at most as many ends as it needs devices.
TEST(Scheduler, NoRunStarves) {
  std::mt19937 random(1);
  std::vector<WorkerSlots> fleet = {worker("a", 4, false), worker("b", 4, false)};
  for (WorkerSlots& w : fleet)
    for (DeviceSlot& d : w.devices) d.free = false;
  const std::vector<WaitingRun> runs = {{1, 4, Backend::cuda}, {2, 1, Backend::cuda}, {3, 1, Backend::cuda}};
  for (int ends = 1; ends <= 100; ++ends) {
    DeviceSlot& ended = fleet[random() % 2].devices[random() % 4];
    ended.free = true;
    const Schedule plan = schedule(runs, fleet, false);
    for (const Assignment& assignment : plan.assignments) {
      if (assignment.run_id == 1) return;
      for (WorkerSlots& w : fleet)
        for (DeviceSlot& d : w.devices)
          if (d.id == assignment.device_ids[0]) d.free = false;
    }
  }
  FAIL() << "the large run never started";
}

TEST(Scheduler, NoDeviceIsGivenTwice) {
  std::mt19937 random(2);
  for (int round = 0; round < 500; ++round) {
    std::vector<WorkerSlots> fleet = {worker("a", 3), worker("b", 5), worker("c", 0)};
    std::set<std::string> free;
    for (WorkerSlots& w : fleet)
      for (DeviceSlot& d : w.devices)
        if ((d.free = random() % 2)) free.insert(d.id);
    std::vector<WaitingRun> runs;
    for (int64_t id = 1; id <= 12; ++id)
      runs.push_back({id, static_cast<int>(1 + random() % 4), static_cast<Backend>(random() % 3)});
    for (const Assignment& assignment : schedule(runs, fleet, false).assignments) {
      EXPECT_EQ(static_cast<int>(assignment.device_ids.size()),
                runs[static_cast<size_t>(assignment.run_id - 1)].devices);
      for (const std::string& id : assignment.device_ids) EXPECT_EQ(free.erase(id), 1u) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace assay
