#include "services/telemetry/machine_readings.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/thread_name.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace sluice::services {
namespace {

using qos::Resource;
using std::chrono::milliseconds;

constexpr uint64_t kMiB = 1 << 20;

// A machine made of files.
class MachineReadingsTest : public testing::Test {
 protected:
  MachineReadingsTest() {
    Write("proc/meminfo", "MemTotal:        1048576 kB\nMemFree:  1 kB\n");
    Write("proc/self/cgroup", "0::/app\n");
    Resident(100);
    Write("proc/self/limits",
          "Limit                     Soft Limit           Hard Limit           Units\n"
          "Max processes             9                    9                    processes\n"
          "Max open files            20                   4096                 files\n");
    Write("proc/self/fd/0", "");
    Write("cgroups/keep", "");
    Process(0);
  }
  void Write(const std::string& name, const std::string& content) {
    const std::filesystem::path path = folder_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
  }
  void Resident(int mib) { Write("proc/self/status", fmt::format("Name:\tx\nVmRSS:\t  {} kB\n", mib * 1024)); }
  void Cpu(const std::string& name, const std::string& path, uint64_t user, uint64_t system) {
    Write(path, fmt::format("7 ({}) S 1 1 1 0 -1 0 0 0 0 0 {} {} 0 0 20 0 9 0 5 0 0\n", name, user, system));
  }
  void Process(uint64_t ticks) { Cpu("server", "proc/self/stat", ticks / 2, ticks - ticks / 2); }
  void Thread(int id, const std::string& name, uint64_t ticks) {
    Cpu(name, fmt::format("proc/self/task/{}/stat", id), 0, ticks);
  }
  MachineReadings Readings(uint64_t memory_limit = 0) {
    return MachineReadings(
        {.proc = folder_ / "proc", .cgroups = folder_ / "cgroups", .memory_limit_bytes = memory_limit, .cpus = 2},
        clock_);
  }
  double Now(MachineReadings& readings, Resource resource) {
    clock_.Advance(milliseconds(250));
    return readings.Read().pressure[static_cast<size_t>(resource)];
  }

  const uint64_t second_ = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));  // ticks
  test::TempFolder folder_;
  test::ManualClock clock_;
};

TEST_F(MachineReadingsTest, ResidentMemoryAgainstTheMachine) {
  auto readings = Readings();
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 100.0 / 1024);
  Resident(512);
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.5);
  EXPECT_EQ(readings.Read().memory_limit_bytes, 1024 * kMiB);
  EXPECT_EQ(readings.Read().memory_bytes, 512 * kMiB);
}

TEST_F(MachineReadingsTest, AConfiguredLimitIsALimitToo) {
  auto readings = Readings(200 * kMiB);
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.5);
  auto wide = Readings(uint64_t{1} << 40);
  EXPECT_DOUBLE_EQ(Now(wide, Resource::kMemory), 100.0 / 1024) << "it cannot be more than there is";
}

TEST_F(MachineReadingsTest, ControlGroupV2) {
  Write("cgroups/app/memory.current", fmt::format("{}\n", 300 * kMiB));
  Write("cgroups/app/memory.max", fmt::format("{}\n", 400 * kMiB));
  Write("cgroups/app/memory.stat", fmt::format("anon 5\nfile 9\ninactive_file {}\nactive_file 1\n", 100 * kMiB));
  auto readings = Readings();
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.5) << "page cache that can be dropped does not count";
  EXPECT_EQ(readings.Read().memory_limit_bytes, 400 * kMiB);
  Resident(380);
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.95) << "resident memory against the group's limit";
  Write("cgroups/app/memory.max", "max\n");
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 380.0 / 1024) << "no limit";
}

TEST_F(MachineReadingsTest, TheLimitMayStandInAGroupAbove) {
  Write("proc/self/cgroup", "1:name=systemd:/x\n0::/pods/one/app\n");
  Write("cgroups/pods/one/app/memory.current", fmt::format("{}\n", 10 * kMiB));
  Write("cgroups/pods/one/app/memory.max", "max\n");
  Write("cgroups/pods/memory.current", fmt::format("{}\n", 90 * kMiB));
  Write("cgroups/pods/memory.max", fmt::format("{}\n", 120 * kMiB));
  auto readings = Readings();
  Resident(10);
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.75);
}

TEST_F(MachineReadingsTest, InAContainerTheRootIsTheGroup) {
  Write("proc/self/cgroup", "0::/kubepods/burstable/pod1\n");
  Write("cgroups/memory.current", fmt::format("{}\n", 150 * kMiB));
  Write("cgroups/memory.max", fmt::format("{}\n", 200 * kMiB));
  auto readings = Readings();
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.75);
}

TEST_F(MachineReadingsTest, ControlGroupV1) {
  Write("proc/self/cgroup", "4:memory:/jobs/7\n2:cpuacct:/\n0::/\n");
  Write("cgroups/memory/memory.usage_in_bytes", fmt::format("{}\n", 900 * kMiB));
  Write("cgroups/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("cgroups/memory/jobs/7/memory.usage_in_bytes", fmt::format("{}\n", 160 * kMiB));
  Write("cgroups/memory/jobs/7/memory.limit_in_bytes", fmt::format("{}\n", 200 * kMiB));
  Write("cgroups/memory/jobs/7/memory.stat", fmt::format("inactive_file 1\ntotal_inactive_file {}\n", 40 * kMiB));
  auto readings = Readings();
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 0.6);
}

TEST_F(MachineReadingsTest, CpuWithoutTheEngine) {
  Thread(1, "server", 0);
  Thread(2, "sluice-engine", 0);
  Thread(3, "sluice-compute", 0);
  auto readings = Readings();
  EXPECT_EQ(Now(readings, Resource::kCpu), -1) << "one reading says nothing";
  // In a quarter of a second both CPUs were busy: the engine with 0.4 s, the rest with 0.1 s.
  Thread(2, "sluice-engine", second_ * 2 / 10);
  Thread(3, "sluice-compute", second_ * 2 / 10);
  Process(second_ * 5 / 10);
  EXPECT_NEAR(Now(readings, Resource::kCpu), 0.2, 1e-9) << "0.1 s of 2 x 0.25 s";
}

TEST_F(MachineReadingsTest, CpuIsSmoothAndForgetsThreadsThatEnd) {
  Thread(2, "sluice-engine", 0);
  auto readings = Readings();
  (void)readings.Read();
  uint64_t process = 0;
  double cpu = 0;
  for (int i = 0; i < 40; ++i) {  // one CPU of two
    Process(process += second_ / 4);
    cpu = Now(readings, Resource::kCpu);
  }
  EXPECT_NEAR(cpu, 0.5, 0.001);
  std::filesystem::remove_all(folder_.path() / "proc/self/task/2");
  Thread(9, "odd) (name", 1'000'000);  // not an engine's, whatever it is called
  const double after = Now(readings, Resource::kCpu);
  EXPECT_GT(after, 0.4);
  EXPECT_LT(after, 0.5) << "nothing ran meanwhile";
  Process(0);  // a counter that goes back
  EXPECT_GE(Now(readings, Resource::kCpu), 0);
}

TEST_F(MachineReadingsTest, FileDescriptors) {
  for (int i = 0; i < 15; ++i) Write(fmt::format("proc/self/fd/{}", i), "");
  auto readings = Readings();
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kFileDescriptors), 0.75) << "of the soft limit";
  EXPECT_EQ(readings.Read().open_files, 15);
  EXPECT_EQ(readings.Read().max_open_files, 20);
}

TEST_F(MachineReadingsTest, WhatCannotBeReadIsNotKnown) {
  MachineReadings readings({.proc = folder_ / "gone", .cgroups = folder_ / "gone", .cpus = 1}, clock_);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Now(readings, Resource::kMemory), -1);
    EXPECT_EQ(readings.Read().pressure, (qos::Pressure{-1, -1, -1}));
  }
}

TEST_F(MachineReadingsTest, ReadsFourTimesASecondAtMost) {
  auto readings = Readings();
  EXPECT_DOUBLE_EQ(Now(readings, Resource::kMemory), 100.0 / 1024);
  Resident(512);
  clock_.Advance(milliseconds(249));
  EXPECT_DOUBLE_EQ(readings.Read().pressure[0], 100.0 / 1024);
  clock_.Advance(milliseconds(1));
  EXPECT_DOUBLE_EQ(readings.Read().pressure[0], 0.5);
}

TEST_F(MachineReadingsTest, InjectedPressureIsBelieved) {
  auto readings = Readings();
  readings.Inject(Resource::kMemory, 0.99);
  EXPECT_EQ(readings.Read().pressure[0], 0.99);
  readings.Inject(Resource::kMemory, std::nullopt);
  EXPECT_DOUBLE_EQ(readings.Read().pressure[0], 100.0 / 1024);
}

// The real machine: the numbers mean what they say.
TEST(MachineReadingsRealTest, ThisProcess) {
  test::ManualClock clock;
  MachineReadings readings({}, clock);
  const MachineReading reading = readings.Read();
  EXPECT_GT(reading.memory_bytes, kMiB);
  EXPECT_GT(reading.pressure[0], 0);
  EXPECT_LT(reading.pressure[0], 1.1);
  EXPECT_GE(reading.open_files, 3);
  EXPECT_GT(reading.max_open_files, reading.open_files);
}

// By CPU time, so however busy the machine is.
// Their files vanish while they are read.
TEST(MachineReadingsRealTest, ThreadsThatEndDisturbNothing) {
  test::ManualClock clock;
  MachineReadings readings({.min_interval = {}}, clock);
  std::atomic<bool> done = false;
  std::thread starts_others([&] {
    while (!done) std::thread([] {}).join();
  });
  for (int i = 0; i < 2'000; ++i) readings.Read();
  done = true;
  starts_others.join();
  EXPECT_GT(readings.Read().memory_bytes, 0);
}

TEST(MachineReadingsRealTest, BusyThreadsCountUnlessTheyAreTheEngines) {
  const auto cpu_seconds = [] {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
  };
  for (const bool engine : {true, false}) {
    test::ManualClock clock;
    MachineReadings readings({.cpus = 1}, clock);
    std::latch begin(1), done(1), measured(1);
    std::thread thread;
    {
      const ScopedThreadName inherited(engine ? kComputeThread : "sluice-other");
      thread = std::thread([&] {
        begin.wait();
        while (cpu_seconds() < 0.3) {
        }
        done.count_down();
        measured.wait();
      });
    }
    (void)readings.Read();
    begin.count_down();
    done.wait();
    clock.Advance(milliseconds(400));
    const double cpu = readings.Read().pressure[1];
    measured.count_down();
    thread.join();
    if (engine) {
      EXPECT_LT(cpu, 0.2);
    } else {
      EXPECT_GT(cpu, 0.6);
    }
  }
}

}  // namespace
}  // namespace sluice::services
