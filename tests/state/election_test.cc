#include "state/election.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "state/file_store.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice::state {
namespace {

using test::IsOk;

TEST(ElectionTest, OneLeadsAndTheNextFollowsWhenItGivesWay) {
  test::MemoryStore store;
  test::ManualClock clock;
  auto first = std::make_unique<Election>(store, "leader", "a", clock);
  Election second(store, "leader", "b", clock);
  EXPECT_FALSE(first->fence().has_value());
  ASSERT_THAT(first->Tick(), IsOk());
  ASSERT_THAT(second.Tick(), IsOk());
  ASSERT_TRUE(first->fence().has_value());
  EXPECT_FALSE(second.fence().has_value());
  EXPECT_EQ(second.leader(), "a");
  const Fence old = *first->fence();
  ASSERT_THAT(first->Tick(), IsOk());
  EXPECT_EQ(first->fence(), old) << "its own key is no rival";
  first.reset();
  ASSERT_THAT(second.Tick(), IsOk());
  ASSERT_TRUE(second.fence().has_value());
  EXPECT_GT(second.fence()->revision, old.revision) << "so what the old one writes is refused";
  EXPECT_THAT(store.Put("x", "1", 0, {.session = nullptr, .fence = old}),
              test::StatusIs(absl::StatusCode::kAborted));
}

TEST(ElectionTest, AStoreOutOfReachLeavesThingsAsTheyAre) {
  test::MemoryStore store;
  test::ManualClock clock;
  Election election(store, "leader", "a", clock);
  store.SetFault(absl::UnavailableError("gone"));
  EXPECT_FALSE(election.Tick().ok());
  EXPECT_EQ(election.session(), nullptr);
  store.SetFault(absl::OkStatus());
  ASSERT_THAT(election.Tick(), IsOk());
  store.SetFault(absl::UnavailableError("gone"));
  EXPECT_FALSE(election.Tick().ok());
  EXPECT_TRUE(election.fence().has_value()) << "its session has not ended";
  store.SetFault(absl::OkStatus());
}

TEST(ElectionTest, ALeaderThatIsKilledIsFollowedAtOnce) {
  const test::TempFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto store = FileStore::Open(folder.path());
    const test::ManualClock clock;
    Election election(**store, "leader", "child", clock);
    const bool leads = store.ok() && election.Tick().ok() && election.fence().has_value();
    (void)!::write(ready[1], leads ? "y" : "n", 1);
    ::pause();
    ::_exit(0);
  }
  char leads = 0;
  ASSERT_EQ(::read(ready[0], &leads, 1), 1);
  EXPECT_EQ(leads, 'y');
  auto store = FileStore::Open(folder.path());
  ASSERT_THAT(store, IsOk());
  const test::ManualClock clock;
  Election election(**store, "leader", "parent", clock);
  ASSERT_THAT(election.Tick(), IsOk());
  EXPECT_FALSE(election.fence().has_value());
  EXPECT_EQ(election.leader(), "child");
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_THAT(election.Tick(), IsOk());
  EXPECT_TRUE(election.fence().has_value());
}

}  // namespace
}  // namespace sluice::state
