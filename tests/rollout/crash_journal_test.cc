#include "rollout/crash_journal.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "gtest/gtest.h"

namespace sluice::rollout {
namespace {

std::string Fresh(const char* name) {
  const std::string path = testing::TempDir() + name;
  ::unlink(path.c_str());
  return path;
}

// Runs `work` in another process, which then dies at once, or leaves in order.
template <typename Work>
void InAnotherProcess(const std::string& path, bool dies, Work work) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    {
      auto journal = CrashJournal::Open(path, WallTime());
      if (!journal.ok()) ::_exit(1);
      work(**journal);
      if (dies) ::kill(::getpid(), SIGKILL);
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(dies ? WIFSIGNALED(status) : WIFEXITED(status), true);
}

TEST(CrashJournal, TellsWhatWasInFlightWhenTheProcessWasKilled) {
  const std::string path = Fresh("journal");
  InAnotherProcess(path, /*dies=*/true, [](CrashJournal& journal) {
    journal.SetAttempt("ttft_pipeline#3");
    const int ended = journal.Begin(Arm::kCanary);
    journal.Begin(Arm::kCanary);
    journal.Begin(Arm::kCanary);
    journal.Begin(Arm::kBaseline);
    journal.End(ended);
  });
  const auto journal = CrashJournal::Open(path, WallTime(Duration(7)));
  ASSERT_TRUE(journal.ok()) << journal.status();
  const CrashJournal::Crash& crash = (*journal)->previous();
  EXPECT_FALSE(crash.orderly);
  EXPECT_EQ(crash.attempt, "ttft_pipeline#3");
  EXPECT_EQ(crash.in_flight, (std::array<uint64_t, kArms>{1, 2}));
  EXPECT_EQ(crash.noticed, WallTime(Duration(7)));
}

TEST(CrashJournal, AnOrderlyEndIsNoCrashAndACrashIsToldOnce) {
  const std::string path = Fresh("journal2");
  InAnotherProcess(path, /*dies=*/false, [](CrashJournal& journal) { journal.Begin(Arm::kCanary); });
  { EXPECT_TRUE((*CrashJournal::Open(path, WallTime()))->previous().orderly); }
  InAnotherProcess(path, /*dies=*/true, [](CrashJournal& journal) { journal.Begin(Arm::kCanary); });
  { EXPECT_FALSE((*CrashJournal::Open(path, WallTime()))->previous().orderly); }
  EXPECT_TRUE((*CrashJournal::Open(path, WallTime()))->previous().orderly);
}

TEST(CrashJournal, KnowsWhenACanaryOfTheSameAttemptCrashedBefore) {
  const std::string path = Fresh("journal5");
  const auto crash = [&path](const char* attempt, Arm arm) {
    InAnotherProcess(path, /*dies=*/true, [&](CrashJournal& journal) {
      journal.SetAttempt(attempt);
      journal.Begin(arm);
    });
  };
  const auto before = [&path](int now) {
    return (*CrashJournal::Open(path, WallTime(Duration(now))))->previous().before;
  };
  crash("f#1", Arm::kCanary);
  EXPECT_EQ(before(10), std::nullopt);
  EXPECT_EQ(before(11), std::nullopt) << "an orderly end";
  crash("f#1", Arm::kBaseline);
  EXPECT_EQ(before(12), std::nullopt) << "not the canary's";
  crash("f#1", Arm::kCanary);
  EXPECT_EQ(before(20), WallTime(Duration(10)));
  crash("f#1", Arm::kCanary);
  EXPECT_EQ(before(30), WallTime(Duration(20)));
  crash("f#2", Arm::kCanary);
  EXPECT_EQ(before(40), std::nullopt) << "another attempt";
}

TEST(CrashJournal, AForeignFileIsBegunAnewAndAFolderThatIsNotThereIsSaid) {
  const std::string path = Fresh("journal3");
  std::ofstream(path) << std::string(100'000, 'x');
  const auto journal = CrashJournal::Open(path, WallTime());
  ASSERT_TRUE(journal.ok());
  EXPECT_TRUE((*journal)->previous().orderly);
  EXPECT_GE((*journal)->Begin(Arm::kCanary), 0);
  EXPECT_EQ(CrashJournal::Open("/does/not/exist", WallTime()).status().code(), absl::StatusCode::kUnavailable);
}

TEST(CrashJournal, AFullJournalLeavesRequestsOut) {
  auto journal = CrashJournal::Open(Fresh("journal4"), WallTime());
  ASSERT_TRUE(journal.ok());
  int slot = 0;
  for (size_t i = 0; i < CrashJournal::kSlots; ++i) {
    slot = (*journal)->Begin(Arm::kBaseline);
    ASSERT_GE(slot, 0) << i;
  }
  EXPECT_EQ((*journal)->Begin(Arm::kBaseline), -1);
  (*journal)->End(-1);
  (*journal)->End(slot);
}

}  // namespace
}  // namespace sluice::rollout
