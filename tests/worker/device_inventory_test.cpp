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
                                              {file("meminfo", "MemTotal:       16384 kB\n"), "/none"}});
  ASSERT_THAT(devices, SizeIs(1));
  EXPECT_EQ(devices[0].id, "cpu:gpu01");
  EXPECT_EQ(devices[0].kind, DeviceKind::cpu);
  EXPECT_THAT(devices[0].name, MatchesRegex("Example 9000, [0-9]+ cores?"));
  EXPECT_EQ(devices[0].memory_bytes, 16384 * 1024);
}

TEST(DeviceInventory, OffersTheGpusTheEngineCanUse) {
  GpuInventory inventory{.driver_version = "580.1"};
  inventory.gpus = {{.uuid = "GPU-a", .name = "H100", .memory_bytes = 80, .compute_major = 9},
                    {.uuid = "GPU-b", .name = "A100", .memory_bytes = 40, .compute_major = 8},
                    {.uuid = "GPU-c", .name = "H200", .memory_bytes = 141, .compute_major = 9}};
  auto offered = offer_gpus(inventory, nullptr);
  ASSERT_THAT(offered, SizeIs(2));
  EXPECT_EQ(offered[0].id, "GPU-a");
  EXPECT_EQ(offered[0].kind, DeviceKind::cuda);
  EXPECT_EQ(offered[1].name, "H200");
  EXPECT_EQ(offered[1].memory_bytes, 141);
  ASSERT_THAT(offer_gpus(inventory, "2"), SizeIs(1));
  EXPECT_EQ(offer_gpus(inventory, "2")[0].id, "GPU-c");
  inventory.driver_version = "570.86";
  EXPECT_THAT(offer_gpus(inventory, nullptr), SizeIs(0));
  EXPECT_THAT(offer_gpus({.problem = "no NVIDIA driver", .no_driver = true}, nullptr), SizeIs(0));
}

TEST(DeviceInventory, ThisHostHasMemory) {
  EXPECT_GT(list_devices("h")[0].memory_bytes, 1 << 20);
}

}  // namespace
}  // namespace assay
