// What every StateStore must do. A store's tests compile store_contract.cc and instantiate the suite:
//   INSTANTIATE_TEST_SUITE_P(File, StoreContract, testing::Values([] { return std::make_unique<FileWorld>(); }));
#pragma once

#include <functional>
#include <memory>

#include "gtest/gtest.h"
#include "state/state_store.h"

namespace sluice::state {

// One empty store, and the ways to it.
class StoreWorld {
 public:
  virtual ~StoreWorld() = default;
  // A client of its own, as another process would have.
  virtual std::shared_ptr<StateStore> Connect() = 0;
};

class StoreContract : public testing::TestWithParam<std::function<std::unique_ptr<StoreWorld>()>> {
 protected:
  const std::unique_ptr<StoreWorld> world_ = GetParam()();
  const std::shared_ptr<StateStore> store_ = world_->Connect();
};

}  // namespace sluice::state
