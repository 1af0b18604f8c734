#include "base/memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_folder.h"

namespace assay {
namespace {

constexpr int64_t kib = 1024;

class MemoryTest : public testing::Test {
 protected:
  MemoryTest() { std::filesystem::create_directory(temp_.file("group")); }
  void write(const std::string& name, const std::string& content) { std::ofstream(temp_.file(name)) << content; }
  HostMemory memory() { return host_memory({temp_.file("meminfo"), temp_.file("group")}); }
  TempFolder temp_;
};

TEST_F(MemoryTest, TheHostsOwnFiguresWhereThereIsNoLimit) {
  write("meminfo", "MemTotal:       16384 kB\nMemFree:        1 kB\nMemAvailable:    9000 kB\n");
  EXPECT_EQ(memory().total_bytes, 16384 * kib);
  EXPECT_EQ(memory().available_bytes, 9000 * kib);
  write("group/memory.max", "max\n");
  EXPECT_EQ(memory().total_bytes, 16384 * kib);
}

TEST_F(MemoryTest, AControlGroupsLimitCountsWhereItIsLower) {
  write("meminfo", "MemTotal: 16384 kB\nMemAvailable: 9000 kB\n");
  write("group/memory.max", "8388608\n");
  write("group/memory.current", "6291456\n");
  write("group/memory.stat", "anon 4194304\nfile 2097152\ninactive_file 1048576\nactive_file 524288\n");
  EXPECT_EQ(memory().total_bytes, 8192 * kib);
  EXPECT_EQ(memory().available_bytes, (8192 - 6144 + 1536) * kib) << "cached files give way";
  write("group/memory.max", "99999999999\n");
  EXPECT_EQ(memory().total_bytes, 16384 * kib);
  EXPECT_EQ(memory().available_bytes, 9000 * kib);
}

TEST_F(MemoryTest, WhatCannotBeReadIsNotKnown) {
  EXPECT_EQ(memory().total_bytes, 0);
  EXPECT_EQ(memory().available_bytes, 0);
}

TEST(Memory, ThisHostHasSome) {
  EXPECT_GT(host_memory().total_bytes, 1 << 20);
  EXPECT_GT(host_memory().available_bytes, 0);
  EXPECT_LE(host_memory().available_bytes, host_memory().total_bytes);
}

}  // namespace
}  // namespace assay
