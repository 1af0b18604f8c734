#include "worker/device_inventory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::MatchesRegex;
using testing::SizeIs;

class DeviceInventoryTest : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& content) {
    std::ofstream(temp_.path() + "/" + name) << content;
    return temp_.path() + "/" + name;
  }
  TempFolder temp_;
};

TEST_F(DeviceInventoryTest, TheHostsCpusAreOneDevice) {
  const auto devices = list_devices("gpu01", {file("cpuinfo", "processor\t: 0\nmodel name\t: Example 9000\n"),
                                              file("meminfo", "MemTotal:       16384 kB\n"), temp_.path() + "/none"});
  ASSERT_THAT(devices, SizeIs(1));
  EXPECT_EQ(devices[0].id, "cpu:gpu01");
  EXPECT_EQ(devices[0].kind, "cpu");
  EXPECT_THAT(devices[0].name, MatchesRegex("Example 9000, [0-9]+ cores?"));
  EXPECT_EQ(devices[0].memory_bytes, 16384 * 1024);
}

TEST_F(DeviceInventoryTest, ControlGroupLimitCountsIfLower) {
  const std::string meminfo = file("meminfo", "MemTotal: 16384 kB\n");
  EXPECT_EQ(list_devices("h", {"/none", meminfo, file("a", "1048576\n")})[0].memory_bytes, 1048576);
  EXPECT_EQ(list_devices("h", {"/none", meminfo, file("b", "max\n")})[0].memory_bytes, 16384 * 1024);
  EXPECT_EQ(list_devices("h", {"/none", meminfo, file("c", "99999999999\n")})[0].memory_bytes, 16384 * 1024);
}

TEST(DeviceInventory, ThisHostHasMemory) {
  EXPECT_GT(list_devices("h")[0].memory_bytes, 1 << 20);
}

}  // namespace
}  // namespace assay
