#include "tests/state/store_contract.h"

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "gmock/gmock.h"
#include "tests/state/watch_log.h"
#include "tests/support/status_matchers.h"

namespace sluice::state {
namespace {

using absl::StatusCode;
using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;

// The revision that a refused change found, from the error's metadata.
std::string CurrentOf(const absl::StatusOr<uint64_t>& refused) {
  EXPECT_THAT(refused, StatusIs(StatusCode::kAborted));
  const ErrorDetails details = GetErrorDetails(refused.status());
  EXPECT_EQ(details.reason, Reason::kRevisionConflict);
  const auto found = details.metadata.find("current_revision");
  return found == details.metadata.end() ? "none" : found->second;
}

// Adds one to the number in `key`, as often as it takes. Returns the revision of its change.
uint64_t Increment(StateStore& store, const std::string& key) {
  while (true) {
    const absl::StatusOr<Entry> now = store.Get(key);
    EXPECT_TRUE(now.ok() || absl::IsNotFound(now.status())) << now.status();
    const int value = now.ok() ? std::stoi(now->value) : 0;
    const auto put = store.Put(key, std::to_string(value + 1), now.ok() ? now->revision : 0);
    if (put.ok()) return *put;
    EXPECT_THAT(put, StatusIs(StatusCode::kAborted));
  }
}

void InThreads(int count, const std::function<void(int)>& run) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(run, i);
  for (std::thread& thread : threads) thread.join();
}

TEST_P(StoreContract, PutGetDelete) {
  EXPECT_THAT(store_->Get("a"), StatusIs(StatusCode::kNotFound));
  const auto first = store_->Put("a", "1", 0);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(*store_->Get("a"), (Entry{"a", "1", *first}));
  const auto second = store_->Put("a", "2", *first);
  ASSERT_THAT(second, IsOk());
  EXPECT_GT(*second, *first);
  EXPECT_EQ(*store_->Get("a"), (Entry{"a", "2", *second}));
  const auto deleted = store_->Delete("a", *second);
  ASSERT_THAT(deleted, IsOk());
  EXPECT_GT(*deleted, *second);
  EXPECT_THAT(store_->Get("a"), StatusIs(StatusCode::kNotFound));
  const auto again = store_->Put("a", "3", 0);
  ASSERT_THAT(again, IsOk());
  EXPECT_GT(*again, *deleted);
}

TEST_P(StoreContract, AnotherClientSeesAtOnceWhatReturned) {
  const std::shared_ptr<StateStore> other = world_->Connect();
  uint64_t revision = 0;
  for (int i = 0; i < 20; ++i) {
    StateStore& writer = i % 2 == 0 ? *store_ : *other;
    StateStore& reader = i % 2 == 0 ? *other : *store_;
    const auto put = writer.Put("a", std::to_string(i), revision);
    ASSERT_THAT(put, IsOk());
    revision = *put;
    EXPECT_EQ(*reader.Get("a"), (Entry{"a", std::to_string(i), revision}));
  }
}

TEST_P(StoreContract, AChangeThatExpectedAnotherRevisionIsRefused) {
  EXPECT_EQ(CurrentOf(store_->Put("a", "x", 7)), "0");
  EXPECT_EQ(CurrentOf(store_->Delete("a", 7)), "0");
  const auto put = store_->Put("a", "1", 0);
  ASSERT_THAT(put, IsOk());
  for (const uint64_t wrong : {uint64_t{0}, *put - 1, *put + 1}) {
    EXPECT_EQ(CurrentOf(store_->Put("a", "x", wrong)), std::to_string(*put));
    if (wrong != 0) {
      EXPECT_EQ(CurrentOf(store_->Delete("a", wrong)), std::to_string(*put));
    }
  }
  EXPECT_EQ(*store_->Get("a"), (Entry{"a", "1", *put}));
}

TEST_P(StoreContract, ListsByPrefixInOrder) {
  for (const char* key : {"b/2", "b", "a", "b/1", "c", "b0"}) ASSERT_THAT(store_->Put(key, key, 0), IsOk());
  const auto keys = [&](std::string_view prefix) {
    std::vector<std::string> out;
    const auto listing = store_->List(prefix);
    EXPECT_THAT(listing, IsOk());
    for (const Entry& entry : listing->entries) {
      EXPECT_EQ(entry.value, entry.key);
      EXPECT_LE(entry.revision, listing->revision);
      out.push_back(entry.key);
    }
    return out;
  };
  EXPECT_THAT(keys("b/"), ElementsAre("b/1", "b/2"));
  EXPECT_THAT(keys("b"), ElementsAre("b", "b/1", "b/2", "b0"));
  EXPECT_THAT(keys(""), ElementsAre("a", "b", "b/1", "b/2", "b0", "c"));
  EXPECT_THAT(keys("d"), ElementsAre());
}

TEST_P(StoreContract, ValuesAreBytesWithinLimits) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (const std::string& value : {std::string(), all, std::string(kMaxValueBytes, '\n')}) {
    const std::string key = "size" + std::to_string(value.size());
    ASSERT_THAT(store_->Put(key, value, 0), IsOk());
    EXPECT_EQ(store_->Get(key)->value, value);
  }
  EXPECT_THAT(store_->Put("a", std::string(kMaxValueBytes + 1, 'x'), 0), StatusIs(StatusCode::kInvalidArgument));
  for (const std::string& key : {std::string(), std::string("a b"), std::string("a\n"), std::string("\xc3\xa4"),
                                 std::string(1, '\0'), std::string(kMaxKeyBytes + 1, 'k')}) {
    EXPECT_THAT(store_->Put(key, "x", 0), StatusIs(StatusCode::kInvalidArgument)) << key;
    EXPECT_THAT(store_->Delete(key, 1), StatusIs(StatusCode::kInvalidArgument)) << key;
  }
  EXPECT_THAT(store_->Put(std::string(kMaxKeyBytes, 'k'), "x", 0), IsOk());
  EXPECT_THAT(store_->Delete("a", 0), StatusIs(StatusCode::kInvalidArgument));
}

TEST_P(StoreContract, ACommitHappensWholeOrNotAtAll) {
  const auto first = store_->Commit({{.key = "a", .value = "1"}, {.key = "b", .value = "1"}}, std::nullopt);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(store_->Get("a")->revision, *first);
  EXPECT_EQ(store_->Get("b")->revision, *first);
  const auto refused =
      store_->Commit({{.key = "a", .value = "2", .expected = *first}, {.key = "b", .value = "2"}}, std::nullopt);
  EXPECT_EQ(CurrentOf(refused), std::to_string(*first));
  EXPECT_EQ(GetErrorDetails(refused.status()).metadata.at("key"), "b");
  EXPECT_EQ(*store_->Get("a"), (Entry{"a", "1", *first}));
  const auto second = store_->Commit({{.key = "a", .value = std::nullopt, .expected = *first},
                                      {.key = "b", .value = "2", .expected = *first},
                                      {.key = "c", .value = "2"}},
                                     std::nullopt);
  ASSERT_THAT(second, IsOk());
  EXPECT_GT(*second, *first);
  EXPECT_THAT(store_->List("")->entries, ElementsAre(Entry{"b", "2", *second}, Entry{"c", "2", *second}));

  EXPECT_THAT(store_->Commit({}, std::nullopt), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(store_->Commit({{.key = "x", .value = "1"}, {.key = "x", .value = "2"}}, std::nullopt),
              StatusIs(StatusCode::kInvalidArgument));
  std::vector<Change> many;
  for (size_t i = 0; i < kMaxChanges; ++i) many.push_back({.key = "n" + std::to_string(i), .value = "n"});
  EXPECT_THAT(store_->Commit(many, std::nullopt), IsOk());
  for (Change& change : many) change.key = "m" + change.key;
  many.push_back({.key = "more", .value = "n"});
  EXPECT_THAT(store_->Commit(many, std::nullopt), StatusIs(StatusCode::kInvalidArgument));
  const std::string half(kMaxValueBytes / 2 + 1, 'x');
  EXPECT_THAT(store_->Commit({{.key = "x", .value = half}, {.key = "y", .value = half}}, std::nullopt),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(store_->Get("x"), StatusIs(StatusCode::kNotFound));
}

TEST_P(StoreContract, AFenceThatDoesNotHoldStopsEveryChange) {
  const auto leader = store_->Put("leader", "one", 0);
  ASSERT_THAT(leader, IsOk());
  const Fence fence{.key = "leader", .revision = *leader};
  const auto put = store_->Put("a", "1", 0, {.fence = fence});
  ASSERT_THAT(put, IsOk());
  const auto next = store_->Put("leader", "two", *leader);
  ASSERT_THAT(next, IsOk());
  for (const auto& refused :
       {store_->Put("a", "2", *put, {.fence = fence}), store_->Put("b", "2", 0, {.fence = fence}),
        store_->Delete("a", *put, fence), store_->Put("a", "2", /*expected=*/7, {.fence = fence})}) {
    EXPECT_EQ(CurrentOf(refused), std::to_string(*next));
    EXPECT_EQ(GetErrorDetails(refused.status()).metadata.at("fence_key"), "leader");
  }
  EXPECT_EQ(*store_->Get("a"), (Entry{"a", "1", *put}));
  ASSERT_THAT(store_->Delete("leader", *next), IsOk());
  EXPECT_EQ(CurrentOf(store_->Delete("a", *put, fence)), "0");
  EXPECT_THAT(store_->Delete("a", *put, Fence{.key = "leader", .revision = 0}), IsOk());
  // A change of the fence itself, as a leader's that steps down and leaves word.
  const auto last = store_->Put("leader", "three", 0);
  EXPECT_THAT(store_->Delete("leader", *last, Fence{.key = "leader", .revision = *last}), IsOk());
  EXPECT_THAT(store_->Put("b", "", 0, {.fence = Fence{.key = "", .revision = 1}}),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_P(StoreContract, EntriesVanishWithTheirSession) {
  const std::shared_ptr<StateStore> other = world_->Connect();
  WatchLog log;
  const auto watch = other->Watch("", log.Callback());
  auto session = store_->BeginSession(kMinSessionTtl);
  ASSERT_THAT(session, IsOk());
  const std::string name((*session)->name());
  ASSERT_THAT(store_->Put("kept", "1", 0), IsOk());
  const auto mine = store_->Put("mine/a", "1", 0, {.session = session->get()});
  ASSERT_THAT(mine, IsOk());
  EXPECT_EQ(*other->Get("mine/a"), (Entry{"mine/a", "1", *mine, name}));
  ASSERT_THAT(store_->Put("mine/b", "1", 0, {.session = session->get()}), IsOk());
  const auto given_up = store_->Put("mine/c", "1", 0, {.session = session->get()});
  ASSERT_THAT(given_up, IsOk());
  ASSERT_THAT(other->Put("mine/c", "2", *given_up), IsOk());  // no longer the session's
  log.Await({{"kept", "1"}, {"mine/a", "1"}, {"mine/b", "1"}, {"mine/c", "2"}});

  const auto another = other->BeginSession(kMinSessionTtl);
  ASSERT_THAT(another, IsOk());
  EXPECT_NE((*another)->name(), name);
  ASSERT_THAT(other->Put("theirs", "1", 0, {.session = another->get()}), IsOk());
  session->reset();
  log.Await({{"kept", "1"}, {"mine/c", "2"}, {"theirs", "1"}});
  EXPECT_THAT(other->Put("mine/a", "again", 0), IsOk());
}

TEST_P(StoreContract, NoIncrementIsLostInARace) {
  constexpr int kThreads = 6, kEach = 15;
  const std::vector<std::shared_ptr<StateStore>> clients = {store_, world_->Connect(), world_->Connect()};
  std::mutex mu;
  std::set<uint64_t> revisions;
  InThreads(kThreads, [&](int thread) {
    uint64_t last = 0;
    for (int i = 0; i < kEach; ++i) {
      const uint64_t revision = Increment(*clients[static_cast<size_t>(thread) % clients.size()], "count");
      EXPECT_GT(revision, last);
      last = revision;
      const std::lock_guard lock(mu);
      EXPECT_TRUE(revisions.insert(revision).second) << "two changes at revision " << revision;
    }
  });
  EXPECT_EQ(store_->Get("count")->value, std::to_string(kThreads * kEach));
}

TEST_P(StoreContract, OneWinsTheRaceToCreateAndToDelete) {
  constexpr int kThreads = 8;
  const std::shared_ptr<StateStore> other = world_->Connect();
  for (int round = 0; round < 3; ++round) {
    std::atomic<int> created = 0, deleted = 0;
    InThreads(kThreads, [&](int thread) {
      if ((thread % 2 == 0 ? store_ : other)->Put("leader", std::to_string(thread), 0).ok()) ++created;
    });
    const uint64_t revision = store_->Get("leader")->revision;
    InThreads(kThreads, [&](int thread) {
      if ((thread % 2 == 0 ? store_ : other)->Delete("leader", revision).ok()) ++deleted;
    });
    EXPECT_EQ(created, 1);
    EXPECT_EQ(deleted, 1);
  }
}

TEST_P(StoreContract, AWatchBeginsWithWhatIsThereAndFollows) {
  const auto first = store_->Put("a/1", "one", 0);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(store_->Put("b/1", "elsewhere", 0), IsOk());
  WatchLog log;
  const auto watch = store_->Watch("a/", log.Callback());
  EXPECT_EQ(log.calls(), 1u);
  log.Await({{"a/1", "one"}});
  const std::shared_ptr<StateStore> other = world_->Connect();
  const auto second = other->Put("a/1", "two", *first);
  log.Await({{"a/1", "two"}});
  ASSERT_THAT(store_->Put("a/2", "", 0), IsOk());
  log.Await({{"a/1", "two"}, {"a/2", ""}});
  ASSERT_THAT(other->Delete("a/1", *second), IsOk());
  log.Await({{"a/2", ""}});
  ASSERT_THAT(store_->Put("a/1", "three", 0), IsOk());
  log.Await({{"a/1", "three"}, {"a/2", ""}});
}

TEST_P(StoreContract, AWatchOfNothingIsToldSoOnce) {
  WatchLog log;
  const auto watch = store_->Watch("none/", log.Callback());
  EXPECT_EQ(log.calls(), 1u);
  WatchLog later;
  const auto other = store_->Watch("", later.Callback());
  ASSERT_THAT(store_->Put("a", "1", 0), IsOk());
  later.Await({{"a", "1"}});
  EXPECT_EQ(log.calls(), 1u);  // changes elsewhere are not its business
}

// WatchLog checks the order of what it is told.
TEST_P(StoreContract, AWatchUnderConcurrentWritersEndsAtTheLastState) {
  constexpr int kThreads = 4, kEach = 15;
  WatchLog log;
  const auto watch = store_->Watch("n/", log.Callback());
  const std::shared_ptr<StateStore> other = world_->Connect();
  InThreads(kThreads, [&](int thread) {
    StateStore& store = thread % 2 == 0 ? *store_ : *other;
    for (int i = 0; i < kEach; ++i) {
      Increment(store, "n/shared");
      const std::string own = "n/" + std::to_string(thread);
      const uint64_t revision = Increment(store, own);
      if (i % 4 == 3) {
        EXPECT_THAT(store.Delete(own, revision), IsOk());
      }
    }
  });
  std::map<std::string, std::string> values;
  const auto listing = store_->List("n/");
  ASSERT_THAT(listing, IsOk());
  for (const Entry& entry : listing->entries) values[entry.key] = entry.value;
  EXPECT_EQ(values["n/shared"], std::to_string(kThreads * kEach));
  log.Await(values);
}

TEST_P(StoreContract, ACallbackMayUseTheStore) {
  WatchLog log;
  const auto copies = store_->Watch("to/", log.Callback());
  const auto watch = store_->Watch("from/", [this](const absl::StatusOr<Changes>& changes) {
    ASSERT_THAT(changes, IsOk());
    for (const Entry& entry : changes->put) {
      EXPECT_THAT(store_->Put("to/" + entry.key.substr(5), store_->Get(entry.key)->value, 0), IsOk());
    }
  });
  ASSERT_THAT(store_->Put("from/a", "1", 0), IsOk());
  ASSERT_THAT(store_->Put("from/b", "2", 0), IsOk());
  log.Await({{"to/a", "1"}, {"to/b", "2"}});
}

TEST_P(StoreContract, AnEndedWatchIsSilent) {
  WatchLog ended, running;
  auto watch = store_->Watch("", ended.Callback());
  const auto other = store_->Watch("", running.Callback());
  watch.reset();
  ASSERT_THAT(store_->Put("a", "1", 0), IsOk());
  running.Await({{"a", "1"}});
  EXPECT_EQ(ended.calls(), 1u);
}

}  // namespace
}  // namespace sluice::state
