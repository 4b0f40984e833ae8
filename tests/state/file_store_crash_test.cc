// Processes that share a FileStore, and die while they write.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <iostream>
#include <random>
#include <string>

#include "base/check.h"
#include "base/owned_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "state/file_store.h"
#include "tests/state/watch_log.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice::state {
namespace {

using test::IsOk;

// A child process that runs `body` with the writing end of a pipe. Made while this process has one thread.
class Child {
 public:
  explicit Child(const std::function<void(int pipe)>& body) {
    std::array<int, 2> ends{};
    SLUICE_CHECK(::pipe(ends.data()) == 0, "a pipe");
    pid_ = fork();
    SLUICE_CHECK(pid_ >= 0, "a process");
    if (pid_ == 0) {
      close(ends[0]);
      body(ends[1]);
      _exit(0);
    }
    close(ends[1]);
    pipe_ = OwnedFd(ends[0]);
  }

  int pipe() const { return pipe_.get(); }
  void Kill() const { kill(pid_, SIGKILL); }
  int Wait() const {
    int status = 0;
    waitpid(pid_, &status, 0);
    return status;
  }

 private:
  pid_t pid_ = -1;
  OwnedFd pipe_;
};

// A value whose every part tells its number, of some pages.
std::string ValueOf(uint64_t number) {
  std::string value;
  while (value.size() < 20'000) value += std::to_string(number) + ",";
  return value;
}

// Puts numbers 1, 2, ... under "n" for ever, and reports each when the store has said that it is safe.
void WriteForEver(const std::string& folder, int pipe) {
  const auto store = FileStore::Open(folder);
  if (!store.ok()) _exit(1);
  const auto begun = (*store)->Get("n");
  uint64_t revision = begun.ok() ? begun->revision : 0;
  for (uint64_t number = begun.ok() ? std::stoull(begun->value) + 1 : 1;; ++number) {
    const auto put = (*store)->Put("n", ValueOf(number), revision);
    if (!put.ok()) _exit(2);
    revision = *put;
    const std::array<uint64_t, 2> report = {number, revision};
    if (write(pipe, report.data(), sizeof(report)) != sizeof(report)) _exit(3);
  }
}

TEST(FileStoreCrashTest, WhatWasAcknowledgedSurvivesKill) {
  const uint32_t seed = 20261122;
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  const test::TempFolder folder;
  std::array<uint64_t, 2> last{};  // number, revision
  for (int round = 0; round < 20; ++round) {
    const Child child([&](int pipe) { WriteForEver(folder.path().string(), pipe); });
    const auto reports = std::uniform_int_distribution<int>(1, 5)(random);
    for (int i = 0; i < reports; ++i) ASSERT_EQ(read(child.pipe(), last.data(), sizeof(last)), ssize_t{sizeof(last)});
    // Somewhere inside one of the next changes.
    const timespec pause{.tv_sec = 0, .tv_nsec = std::uniform_int_distribution<long>(0, 3'000'000)(random)};
    ppoll(nullptr, 0, &pause, nullptr);
    child.Kill();
    ASSERT_TRUE(WIFSIGNALED(child.Wait()));
    while (read(child.pipe(), last.data(), sizeof(last)) == ssize_t{sizeof(last)}) {
    }
    const auto store = FileStore::Open(folder.path().string());
    ASSERT_THAT(store, IsOk()) << "round " << round;
    const auto entry = (*store)->Get("n");
    ASSERT_THAT(entry, IsOk());
    const uint64_t number = std::stoull(entry->value);
    EXPECT_TRUE(number == last[0] || number == last[0] + 1) << number << " after " << last[0];
    EXPECT_EQ(entry->value, ValueOf(number));
    EXPECT_EQ(entry->revision, last[1] + (number - last[0]));
  }
  std::cout << last[0] << " changes acknowledged\n";
}

TEST(FileStoreCrashTest, ProcessesShareOneStore) {
  const test::TempFolder folder;
  constexpr int kProcesses = 3, kEach = 25;
  const auto count = [&](int /*pipe*/) {
    const auto store = FileStore::Open(folder.path().string());
    if (!store.ok()) _exit(1);
    for (int done = 0; done < kEach;) {
      const auto now = (*store)->Get("count");
      const int value = now.ok() ? std::stoi(now->value) : 0;
      const auto put = (*store)->Put("count", std::to_string(value + 1), now.ok() ? now->revision : 0);
      if (put.ok()) ++done;
      if (!put.ok() && !absl::IsAborted(put.status())) _exit(2);
    }
  };
  const std::array<Child, kProcesses> children = {Child(count), Child(count), Child(count)};
  for (const Child& child : children) EXPECT_EQ(child.Wait(), 0);
  const auto store = FileStore::Open(folder.path().string());
  ASSERT_THAT(store, IsOk());
  EXPECT_EQ((*store)->Get("count")->value, std::to_string(kProcesses * kEach));
  EXPECT_EQ((*store)->List("")->revision, uint64_t{kProcesses * kEach});
}

TEST(FileStoreCrashTest, EntriesOfAKilledProcessVanish) {
  const test::TempFolder folder;
  const Child child([&](int pipe) {
    const auto store = FileStore::Open(folder.path().string());
    if (!store.ok()) _exit(1);
    const auto session = (*store)->BeginSession(kMinSessionTtl);
    if (!session.ok() || !(*store)->Put("leader", "child", 0, {.session = session->get()}).ok()) _exit(2);
    if (write(pipe, "x", 1) != 1) _exit(3);
    while (true) pause();
  });
  char done = 0;
  ASSERT_EQ(read(child.pipe(), &done, 1), 1);
  const auto store = FileStore::Open(folder.path().string());
  ASSERT_THAT(store, IsOk());
  WatchLog log;
  const auto watch = (*store)->Watch("", log.Callback());
  log.Await({{"leader", "child"}});
  const auto session = (*store)->BeginSession(kMinSessionTtl);
  ASSERT_THAT(session, IsOk());
  EXPECT_THAT((*store)->Put("leader", "parent", 0, {.session = session->get()}),
              test::StatusIs(absl::StatusCode::kAborted));
  child.Kill();
  child.Wait();
  log.Await({});  // by itself
  EXPECT_THAT((*store)->Put("leader", "parent", 0, {.session = session->get()}), IsOk());
}

}  // namespace
}  // namespace sluice::state
