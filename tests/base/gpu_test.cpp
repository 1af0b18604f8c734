#include "base/gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace assay {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int not_supported = 3, too_little_room = 7, gpu_is_lost = 15;

// A driver with `count` GPUs; a test changes what it answers.
struct FakeDriver {
  unsigned count = 1;
  int init_code = 0;
  int shutdowns = 0;
  int lost = -1;  // this GPU does not answer
  std::vector<int> handles = {0, 1, 2, 3};
  std::vector<unsigned> pids;  // that compute on GPU 0

  static int copy(const std::string& text, char* to, unsigned bytes) {
    std::strncpy(to, text.c_str(), bytes - 1);
    return 0;
  }
  Nvml functions() {
    Nvml nvml;
    nvml.init = [this] { return init_code; };
    nvml.shutdown = [this] { return ++shutdowns, 0; };
    nvml.error_text = [](int code) { return code == gpu_is_lost ? "GPU is lost" : "Driver Not Loaded"; };
    nvml.driver_version = [](char* to, unsigned bytes) { return copy("580.95.05", to, bytes); };
    nvml.count = [this](unsigned* n) { return *n = count, 0; };
    nvml.device = [this](unsigned i, void** device) { return *device = &handles[i], 0; };
    nvml.uuid = [](void* d, char* to, unsigned bytes) {
      return copy("GPU-" + std::to_string(*static_cast<int*>(d)), to, bytes);
    };
    nvml.name = [](void*, char* to, unsigned bytes) { return copy("NVIDIA H100", to, bytes); };
    nvml.memory = [this](void* d, Nvml::Memory* m) {
      *m = {80, 50, 30};
      return *static_cast<int*>(d) == lost ? gpu_is_lost : 0;
    };
    nvml.compute_capability = [](void*, int* major, int* minor) { return *major = 9, *minor = 0, 0; };
    nvml.power = [](void*, unsigned* milliwatts) { return *milliwatts = 512'400, 0; };
    nvml.ecc_errors = [](void*, int, int, unsigned long long*) { return not_supported; };
    nvml.device_by_uuid = [this](const char* uuid, void** device) {
      return *device = &handles[0], std::string_view(uuid) == "GPU-0" ? 0 : gpu_is_lost;
    };
    nvml.compute_processes = [this](void*, unsigned* count, Nvml::Process* processes) {
      const bool fits = pids.size() <= *count;
      *count = static_cast<unsigned>(pids.size());
      for (size_t i = 0; fits && i < pids.size(); ++i) processes[i].pid = pids[i];
      return fits ? 0 : too_little_room;
    };
    return nvml;
  }
};

std::vector<std::string> uuids(const std::vector<GpuFacts>& gpus) {
  std::vector<std::string> names;
  for (const GpuFacts& gpu : gpus) names.push_back(gpu.uuid);
  return names;
}

TEST(Gpu, FactsComeFromTheDriver) {
  FakeDriver driver;
  driver.count = 2;
  const GpuInventory inventory = list_gpus(driver.functions(), "");
  EXPECT_EQ(inventory.problem, "");
  EXPECT_EQ(inventory.driver_version, "580.95.05");
  ASSERT_THAT(uuids(inventory.gpus), ElementsAre("GPU-0", "GPU-1"));
  const GpuFacts& gpu = inventory.gpus[1];
  EXPECT_EQ(gpu.name, "NVIDIA H100");
  EXPECT_EQ(gpu.memory_bytes, 80);
  EXPECT_EQ(gpu.memory_used_bytes, 30);
  EXPECT_EQ(gpu.compute_major, 9);
  EXPECT_EQ(gpu.power_w, 512.4);
  EXPECT_EQ(gpu.temperature_c, std::nullopt) << "the driver has no such function";
  EXPECT_EQ(gpu.ecc_uncorrected, std::nullopt) << "the GPU has no such counter";
  EXPECT_EQ(driver.shutdowns, 1);
}

TEST(Gpu, ProcessesThatComputeAreListedHoweverManyThereAre) {
  FakeDriver driver;
  const Nvml nvml = driver.functions();
  EXPECT_THAT(*compute_processes(nvml, "GPU-0"), IsEmpty());
  driver.pids = {4711, 12};
  EXPECT_THAT(*compute_processes(nvml, "GPU-0"), ElementsAre(4711, 12));
  driver.pids.assign(1'000, 5);
  EXPECT_THAT(*compute_processes(nvml, "GPU-0"), SizeIs(1'000));
  EXPECT_EQ(compute_processes(nvml, "GPU-9").error().message, "processes of GPU-9: GPU is lost");
  EXPECT_EQ(compute_processes(Nvml{}, "GPU-0").error().message, "the NVIDIA driver cannot list processes");
}

TEST(Gpu, NoDriverIsNoFailure) {
  const GpuInventory inventory = list_gpus(std::nullopt, "no NVIDIA driver");
  EXPECT_TRUE(inventory.no_driver);
  EXPECT_THAT(inventory.gpus, IsEmpty());
  EXPECT_EQ(inventory.problem, "no NVIDIA driver");
}

TEST(Gpu, ADriverThatDoesNotAnswerIsNamed) {
  FakeDriver driver;
  driver.init_code = 9;
  const GpuInventory inventory = list_gpus(driver.functions(), "");
  EXPECT_FALSE(inventory.no_driver);
  EXPECT_EQ(inventory.problem, "the NVIDIA driver does not answer: Driver Not Loaded");
  EXPECT_EQ(driver.shutdowns, 0);
}

TEST(Gpu, ALostGpuDoesNotHideTheOthers) {
  FakeDriver driver;
  driver.count = 3;
  driver.lost = 1;
  const GpuInventory inventory = list_gpus(driver.functions(), "");
  EXPECT_THAT(uuids(inventory.gpus), ElementsAre("GPU-0", "GPU-2"));
  EXPECT_EQ(inventory.problem, "GPU 1 cannot be read: GPU is lost");
}

TEST(Gpu, ThisMachineIsAskedWithoutAnError) {
  const GpuInventory inventory = list_gpus();
  EXPECT_TRUE(inventory.no_driver ? inventory.gpus.empty() : true);
  EXPECT_EQ(inventory.no_driver, inventory.problem.find("libnvidia-ml.so.1 not found") != std::string::npos);
}

TEST(Gpu, TheEngineNeedsHopperAndANewDriver) {
  GpuFacts gpu{.name = "X", .compute_major = 9};
  EXPECT_EQ(why_unusable(gpu, "580.1"), "");
  EXPECT_EQ(why_unusable(gpu, "1000.1"), "");
  EXPECT_EQ(why_unusable(gpu, "575.9"), "the NVIDIA driver 575.9 is too old for CUDA 13: install 580 or newer");
  gpu.compute_major = 10;
  EXPECT_EQ(why_unusable(gpu, "580.1"),
            "X has compute capability 10.0, the engine needs 9.0 (H100, H200): use such a GPU");
}

TEST(Gpu, VisibleDevicesChooseByIndexOrUuid) {
  const std::vector<GpuFacts> all = {{.uuid = "GPU-aa"}, {.uuid = "GPU-ab"}, {.uuid = "GPU-b"}};
  EXPECT_THAT(visible_gpus(all, nullptr), SizeIs(3));
  EXPECT_THAT(visible_gpus(all, ""), IsEmpty());
  EXPECT_THAT(uuids(visible_gpus(all, "2,0")), ElementsAre("GPU-b", "GPU-aa"));
  EXPECT_THAT(uuids(visible_gpus(all, "GPU-ab,GPU-b")), ElementsAre("GPU-ab", "GPU-b"));
  EXPECT_THAT(uuids(visible_gpus(all, "0,7,1")), ElementsAre("GPU-aa")) << "ends at what names nothing";
  EXPECT_THAT(visible_gpus(all, "-1"), IsEmpty());
  EXPECT_THAT(visible_gpus(all, "NoDevFiles"), IsEmpty());
}

}  // namespace
}  // namespace assay
