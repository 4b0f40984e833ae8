#include "tests/support/memory_store.h"

#include "tests/state/store_contract.h"
#include "tests/state/watch_log.h"
#include "tests/support/status_matchers.h"

namespace sluice::state {
namespace {

class MemoryWorld final : public StoreWorld {
 public:
  std::shared_ptr<StateStore> Connect() override { return store_; }

 private:
  const std::shared_ptr<StateStore> store_ = std::make_shared<test::MemoryStore>();
};

INSTANTIATE_TEST_SUITE_P(Memory, StoreContract, testing::Values([] { return std::make_unique<MemoryWorld>(); }));

TEST(MemoryStoreTest, FaultsReachCallersAndWatches) {
  test::MemoryStore store;
  WatchLog log;
  const auto watch = store.Watch("", log.Callback());
  store.SetFault(absl::UnavailableError("gone"));
  EXPECT_THAT(store.Get("a"), test::StatusIs(absl::StatusCode::kUnavailable));
  log.AwaitFault(absl::StatusCode::kUnavailable);
  store.SetFault(absl::OkStatus());
  log.AwaitFault(absl::StatusCode::kOk);
}

}  // namespace
}  // namespace sluice::state
