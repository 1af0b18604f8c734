#include "base/limits.h"
#include "store_fixture.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FleetTest : public StoreTest {
 protected:
  std::vector<std::string> device_states() {
    auto devices = store_->list_devices();
    EXPECT_TRUE(devices.ok());
    std::vector<std::string> out;
    for (const auto& d : *devices) {
      std::string holder = d.attempt_id != 0 ? " " + d.run + "#" + std::to_string(d.attempt_id) : "";
      out.push_back(d.device.id + " " + std::string(to_string(d.device.state)) + holder);
    }
    return out;
  }
};

TEST_F(FleetTest, DevicesAreTakenTogetherOrNotAtAll) {
  add_worker(3);
  auto runs = enqueue(2);
  AttemptRow first = start(runs[0], {"d1"});
  EXPECT_THAT(device_states(), ElementsAre("d0 free", "d1 busy run0#1", "d2 free"));
  Error error = apply_error({move(runs[1], RunState::queued, RunState::running), lease(runs[1], {"d0", "d2", "d1"})});
  EXPECT_EQ(error.code, ErrorCode::aborted);
  EXPECT_THAT(error.message, HasSubstr("device d1 is held by attempt 1"));
  EXPECT_THAT(device_states(), ElementsAre("d0 free", "d1 busy run0#1", "d2 free")) << "d0 and d2 are not kept";
  EXPECT_EQ(state_of(runs[1]), RunState::queued);
  finish(runs[0], first);
  EXPECT_THAT(device_states(), ElementsAre("d0 free", "d1 free", "d2 free"))
      << "the end of an attempt frees its devices";
  start(runs[1], {"d0", "d2", "d1"});
  EXPECT_THAT(device_states(), ElementsAre("d0 busy run1#2", "d1 busy run1#2", "d2 busy run1#2"));
}

TEST_F(FleetTest, DrainedUnknownAndForeignDevicesAreRefused) {
  add_worker(1);
  add_worker(1, "w2", "x");
  int64_t run = enqueue(1)[0];
  auto claim = [&](const std::string& device) {
    Error error = apply_error({move(run, RunState::queued, RunState::running), lease(run, {device})});
    EXPECT_EQ(error.code, ErrorCode::aborted);
    return error.message;
  };
  EXPECT_EQ(claim("nope"), "there is no device nope");
  EXPECT_EQ(claim("x0"), "device x0 belongs to worker w2, not w1");
  apply_ok({DeviceChange{"d0", "python3 (pid 7)"}});
  EXPECT_EQ(claim("d0"), "device d0 is drained: used by python3 (pid 7)");
  EXPECT_EQ(events().back().kind, EventKind::device_drained);
  EXPECT_EQ(events().back().cause, "d0: used by python3 (pid 7)");
  EXPECT_EQ(store_->list_devices()->at(0).device.drained_by, "python3 (pid 7)");
  const int64_t last = events().back().id;
  apply_ok({DeviceChange{"d0", "python3 (pid 7)"}});
  EXPECT_EQ(events().back().id, last) << "nothing has changed";
  apply_ok({DeviceChange{"d0", "julia (pid 8)"}});
  EXPECT_EQ(events().back().id, last) << "drained as before";
  EXPECT_EQ(store_->list_devices()->at(0).device.drained_by, "julia (pid 8)");
  apply_ok({DeviceChange{"d0", ""}});
  EXPECT_EQ(events().back().cause, "d0: nobody else uses it any longer");
  start(run);
}

TEST_F(FleetTest, TheSameDeviceTwiceInOneLeaseIsRefused) {
  add_worker(1);
  int64_t run = enqueue(1)[0];
  Error error = apply_error({move(run, RunState::queued, RunState::running), lease(run, {"d0", "d0"})});
  EXPECT_EQ(error.code, ErrorCode::aborted);
}

TEST_F(FleetTest, HelloReplacesTheWorkerAndItsDevices) {
  add_worker(3);
  int64_t run = enqueue(1)[0];
  start(run, {"d2"});
  WorkerHello hello;
  hello.worker = {"w1", "host", "boot2", 43, 2000, WorkerState::connected, clock_.unix_ms() + 5};
  hello.devices = {{"d0", "", DeviceKind::cuda, "H200", 141, DeviceState::free, "python3 (pid 7)"}};
  apply_ok({hello});
  auto workers = store_->list_workers();
  ASSERT_EQ(workers->size(), 1u);
  EXPECT_EQ(workers->at(0).boot_id, "boot2");
  EXPECT_EQ(workers->at(0).pid, 43);
  EXPECT_EQ(workers->at(0).start_ticks, 2000);
  EXPECT_EQ(workers->at(0).last_seen, clock_.unix_ms() + 5);
  EXPECT_THAT(device_states(), ElementsAre("d0 drained", "d2 busy run0#1"))
      << "d1 is gone, d2 is held by an attempt, d0 is used by others";
  EXPECT_EQ(events().back().kind, EventKind::worker_connected);
  EXPECT_EQ(store_->list_devices()->at(0).device.name, "H200");
  EXPECT_EQ(store_->list_devices()->at(0).host, "host");
}

TEST_F(FleetTest, WorkerStateChangesAreInTheFeed) {
  add_worker();
  clock_.advance_ms(7);
  apply_ok({WorkerChange{"w1", WorkerState::disconnected, "stream closed"}});
  EXPECT_EQ(store_->list_workers()->at(0).state, WorkerState::disconnected);
  EXPECT_EQ(store_->list_workers()->at(0).last_seen, clock_.unix_ms());
  EventRow event = events().back();
  EXPECT_EQ(event.kind, EventKind::worker_disconnected);
  EXPECT_EQ(event.from_state, "connected");
  EXPECT_EQ(event.cause, "stream closed");
}

TEST_F(FleetTest, RequestsAreRememberedUntilTheyExpire) {
  EXPECT_FALSE(store_->find_request("r1", "cancel")->has_value());
  apply_ok({RequestResult{"r1", "cancel", "answer"}});
  EXPECT_EQ(**store_->find_request("r1", "cancel"), "answer");
  Error error = apply_error({RequestResult{"r1", "cancel", "another"}});
  EXPECT_EQ(error.code, ErrorCode::aborted) << "the other copy of the call won";
  EXPECT_EQ(store_->find_request("r1", "retry").error().code, ErrorCode::invalid_argument);
  clock_.advance_ms(limits::request_id_keep_ms);
  EXPECT_FALSE(store_->find_request("r1", "cancel")->has_value());
  apply_ok({RequestResult{"r1", "retry", "new"}});
  EXPECT_EQ(**store_->find_request("r1", "retry"), "new");
}

TEST_F(FleetTest, ALostRequestRaceUndoesTheWork) {
  int64_t run = enqueue(1)[0];
  apply_ok({RequestResult{"r1", "cancel", "first"}});
  apply_error({move(run, RunState::queued, RunState::cancelled), RequestResult{"r1", "cancel", "second"}});
  EXPECT_EQ(state_of(run), RunState::queued);
}

TEST_F(FleetTest, SettingsAreKept) {
  EXPECT_EQ(*store_->setting("colour"), "");
  apply_ok({SettingChange{"colour", "red", ""}});
  apply_ok({SettingChange{"colour", "blue", ""}});
  reopen();
  EXPECT_EQ(*store_->setting("colour"), "blue");
}

TEST_F(FleetTest, TheFeedIsPagedById) {
  for (int i = 0; i < 5; ++i) apply_ok({EventNote{EventKind::store_restored, std::to_string(i)}});
  auto page = store_->events_after(2, 2);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ(page->at(0).cause, "2");
  EXPECT_EQ(page->at(1).cause, "3");
  EXPECT_EQ(*store_->last_event_id(), 5);
  EXPECT_TRUE(store_->events_after(5, 0)->empty());
}

}  // namespace
}  // namespace assay
