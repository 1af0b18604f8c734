// up, down and doctor: the verbs that deal with the daemon as a process.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/process.h"
#include "cli/doctor_checks.h"
#include "cli/output.h"
#include "fake_service.h"

namespace assay {
namespace {

using test::CliTest;
using testing::HasSubstr;
using testing::SizeIs;

class DaemonVerbs : public CliTest {
 protected:
  void install(const std::string& script) {
    std::ofstream(programs.file("assayd")) << "#!/bin/sh\n" << script;
    ASSERT_EQ(::chmod(programs.file("assayd").c_str(), 0755), 0);
  }
};

TEST_F(DaemonVerbs, UpWithADaemonIsFine) {
  start_daemon();
  EXPECT_EQ(run({"up"}), ExitCode::ok);
  EXPECT_EQ(out, "daemon already running (pid " + std::to_string(::getpid()) + "), home " + home.path() + "\n");
  EXPECT_EQ(run({"up", "--allow-fault-injection"}), ExitCode::refused);
  EXPECT_THAT(err, HasSubstr("runs without fault injection; stop it first: assay down"));
}

TEST_F(DaemonVerbs, UpSaysWhyTheDaemonDied) {
  install("echo 'an old line' ; echo 'assayd: another daemon (pid 7) holds this home' >&2; exit 6\n");
  on_pause = [] { ::usleep(1000); };  // the child is real: give it the processor
  EXPECT_EQ(run({"up"}), ExitCode::refused);
  EXPECT_EQ(err,
            "assay: the daemon ended with exit code 6 at start: assayd: another daemon (pid 7) holds this home (log: " +
                home.path() + "/assayd.log)\n");
}

TEST_F(DaemonVerbs, UpPassesHomeAndFaultInjectionOn) {
  install("echo \"$@\" >&2; exit 1\n");
  on_pause = [] { ::usleep(1000); };
  EXPECT_EQ(run({"up", "--allow-fault-injection"}), ExitCode::refused);
  EXPECT_THAT(err, HasSubstr("at start: --home " + home.path() + " --allow-fault-injection (log"));
}

TEST_F(DaemonVerbs, UpWaitsUntilTheDaemonAnswers) {
  install("exec sleep 5\n");
  on_pause = [this] {
    if (pauses == 3) start_daemon();
  };
  EXPECT_EQ(run({"up"}), ExitCode::ok) << err;
  EXPECT_EQ(pauses, 3);
  EXPECT_THAT(out, testing::StartsWith("daemon started (pid "));
}

TEST_F(DaemonVerbs, UpWaitsUntilTheWorkerHasConnected) {
  install("exec sleep 5\n");
  on_pause = [this] {
    if (pauses == 3) {
      start_daemon();
      fake.info.set_workers_connected(0);
    }
    if (pauses == 5) fake.info.set_workers_connected(1);
  };
  EXPECT_EQ(run({"up"}), ExitCode::ok) << err;
  EXPECT_EQ(pauses, 5);
  EXPECT_EQ(err, "");
}

TEST_F(DaemonVerbs, UpEndsWellWithoutAWorkerAndSaysSo) {
  install("exec sleep 5\n");
  on_pause = [this] {
    if (pauses != 3) return;
    start_daemon();
    fake.info.set_workers_connected(0);
  };
  EXPECT_EQ(run({"--json", "up"}), ExitCode::ok);
  EXPECT_EQ(Json::parse(out)["workers"], 0);
  EXPECT_EQ(err, "assay: no worker has connected yet, and without one nothing runs; its log: " + home.path() +
                     "/worker.log\n");
}

TEST_F(DaemonVerbs, UpNoticesADaemonThatEndsAfterItsFirstAnswer) {
  install("echo 'assayd: the disk is full' >&2; exit 1\n");
  on_pause = [this] {
    ::usleep(1000);
    if (pauses == 1) {
      start_daemon();
      fake.info.set_workers_connected(0);
    }
    if (pauses == 2) server->Shutdown();
  };
  EXPECT_EQ(run({"up"}), ExitCode::refused);
  EXPECT_THAT(err, HasSubstr("ended with exit code 1 at start: assayd: the disk is full"));
}

TEST_F(DaemonVerbs, UpGivesUpOnASilentDaemon) {
  install("exec sleep 5\n");
  EXPECT_EQ(run({"up"}), ExitCode::unavailable);
  EXPECT_THAT(err, HasSubstr("does not answer after 30 s"));
}

TEST_F(DaemonVerbs, UpNeedsItsSibling) {
  EXPECT_EQ(run({"up"}), ExitCode::not_found);
  EXPECT_EQ(err, "assay: " + programs.path() + "/assayd is not there; install assayd beside assay\n");
}

TEST_F(DaemonVerbs, DownWaitsForTheProcess) {
  start_daemon();
  auto child = spawn({.program = "/bin/sleep", .arguments = {"60"}});
  ASSERT_TRUE(child.ok());
  fake.info.set_pid(*child);
  on_pause = [&] {
    if (pauses != 2) return;
    ::kill(*child, SIGKILL);
    ::waitpid(*child, nullptr, 0);
  };
  EXPECT_EQ(run({"down", "--keep-running"}), ExitCode::ok) << err;
  EXPECT_EQ(pauses, 2);
  EXPECT_EQ(out, "daemon stopped (pid " + std::to_string(*child) + "); its workers and their runs go on\n");
  EXPECT_FALSE(fake.stop_workers);
}

TEST_F(DaemonVerbs, DownWithoutADaemonIsFine) {
  EXPECT_EQ(run({"down"}), ExitCode::ok);
  EXPECT_EQ(out, "no daemon is running for " + home.path() + "\n");
}

const Check& named(const std::vector<Check>& checks, const std::string& name) {
  for (const Check& check : checks)
    if (check.name == name) return check;
  static const Check none{Health::fail, "no such check", "", ""};
  return none;
}

TEST_F(DaemonVerbs, DoctorFindsWhatIsMissing) {
  EXPECT_EQ(check_programs(programs.path()).health, Health::fail);
  EXPECT_THAT(check_programs(programs.path()).found, HasSubstr("assayd, assay-worker, assay-trainer"));
  EXPECT_EQ(check_home(home.path()).health, Health::ok);
  EXPECT_EQ(check_home(home.file("not/yet")).health, Health::ok);
  EXPECT_THAT(check_home(home.file("not/yet")).found, HasSubstr("(not made yet)"));
  EXPECT_EQ(check_home("/proc/assay").health, Health::fail);
  const auto absent = check_daemon(home.path());
  ASSERT_EQ(absent.size(), 1u);
  EXPECT_EQ(absent[0].health, Health::warn);
  EXPECT_EQ(absent[0].advice, "assay up");
}

TEST_F(DaemonVerbs, DoctorLooksAtTheDaemon) {
  start_daemon();
  auto checks = check_daemon(home.path());
  EXPECT_EQ(named(checks, "daemon").health, Health::ok);
  EXPECT_EQ(named(checks, "socket").health, Health::ok);
  EXPECT_EQ(named(checks, "worker").health, Health::ok);
  fake.info.set_version("9.9.9");
  fake.info.set_workers_connected(0);
  ASSERT_EQ(::chmod(socket_path(home.path())->c_str(), 0666), 0);
  checks = check_daemon(home.path());
  EXPECT_EQ(named(checks, "daemon").health, Health::warn);
  EXPECT_EQ(named(checks, "worker").health, Health::fail);
  EXPECT_EQ(named(checks, "socket").health, Health::fail);
  EXPECT_THAT(named(checks, "socket").found, HasSubstr("mode 0666: others can reach it"));
}

TEST_F(DaemonVerbs, DoctorSaysInOneLineWhetherThereIsAGpu) {
  const GpuInventory none{.problem = "no NVIDIA driver (libnvidia-ml.so.1 not found)", .no_driver = true};
  ASSERT_THAT(check_gpus(none, {}), SizeIs(1));
  EXPECT_EQ(check_gpus(none, {})[0].health, Health::ok);
  EXPECT_EQ(check_gpus(none, {})[0].found, none.problem + ": runs use the CPU engine");
  EXPECT_EQ(check_gpus(none, {.device_files = true})[0].health, Health::warn);
  const GpuInventory silent{.problem = "the NVIDIA driver does not answer: Unknown Error"};
  ASSERT_THAT(check_gpus(silent, {}), SizeIs(1));
  EXPECT_EQ(check_gpus(silent, {})[0].health, Health::warn);
  EXPECT_EQ(check_gpus({.driver_version = "580.95.05"}, {})[0].found,
            "driver 580.95.05, but no GPU: runs use the CPU engine");
}

TEST(Doctor, SaysWhatAGpuLacks) {
  GpuInventory inventory{.driver_version = "580.95.05"};
  inventory.gpus = {{.uuid = "GPU-1", .name = "H100", .memory_bytes = 80ll << 30, .compute_major = 9}};
  GpuNeeds needs{.cuda_engine = true, .device_files = true, .cudnn_version = 91400};
  auto checks = check_gpus(inventory, needs);
  ASSERT_THAT(checks, SizeIs(2));
  EXPECT_EQ(checks[0].health, Health::ok);
  EXPECT_EQ(checks[0].found, "H100, 80.0 GiB memory, compute capability 9.0, driver 580.95.05");
  EXPECT_EQ(checks[1].found, "cuDNN 9.14.0");
  needs.cudnn_version = 90800;
  EXPECT_EQ(check_gpus(inventory, needs)[1].health, Health::fail);
  EXPECT_EQ(check_gpus(inventory, needs)[1].found, "cuDNN 9.8.0 is too old: attention on the GPU needs 9.10");
  needs.cudnn_version = 0;
  EXPECT_THAT(check_gpus(inventory, needs)[1].found, HasSubstr("libcudnn.so.9 not found"));
  inventory.gpus[0].ecc_uncorrected = 3;
  EXPECT_THAT(check_gpus(inventory, needs)[0].found, HasSubstr("3 uncorrected memory errors"));
  needs.cuda_engine = false;
  EXPECT_THAT(check_gpus(inventory, needs)[0].found, HasSubstr("this build has no CUDA engine"));
  inventory.driver_version = "550.54.15";
  checks = check_gpus(inventory, needs);
  ASSERT_THAT(checks, SizeIs(1)) << "cuDNN is of no interest where no GPU can be used";
  EXPECT_THAT(checks[0].advice, HasSubstr("550.54.15 is too old for CUDA 13: install 580 or newer"));
  inventory.gpus[0].compute_major = 8;
  EXPECT_THAT(check_gpus(inventory, needs)[0].advice, HasSubstr("compute capability 8.0, the engine needs 9.0"));
}

TEST(Devices, LoadOfAGpuIsOneLine) {
  GpuFacts gpu{.memory_used_bytes = 3ll << 30};
  EXPECT_EQ(gpu_load_text(nullptr), "-");
  EXPECT_TRUE(gpu_load_json(nullptr).is_null());
  EXPECT_EQ(gpu_load_text(&gpu), "3.0 GiB used");
  EXPECT_TRUE(gpu_load_json(&gpu)["power_w"].is_null());
  gpu.utilization_percent = 97;
  gpu.temperature_c = 61;
  gpu.power_w = 512.4;
  EXPECT_EQ(gpu_load_text(&gpu), "3.0 GiB used, 97 % busy, 61 C, 512 W");
}

TEST_F(DaemonVerbs, DoctorsExitCodeIsItsAnswer) {
  start_daemon();
  EXPECT_EQ(run({"doctor", "--json"}), ExitCode::negative) << "the programs are not installed";
  EXPECT_EQ(nlohmann::json::parse(out)["healthy"], false);
  for (const char* program : {"assayd", "assay-worker", "assay-trainer", "assay-data"}) {
    std::ofstream(programs.file(program)) << "";
    ASSERT_EQ(::chmod(programs.file(program).c_str(), 0755), 0);
  }
  EXPECT_EQ(run({"doctor"}), ExitCode::ok) << out;
  EXPECT_THAT(out, HasSubstr("ok    programs    assayd, assay-worker, assay-trainer in " + programs.path() + "\n"));
}

}  // namespace
}  // namespace assay
