// Stores in a real etcd, for tests.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/metrics.h"
#include "gtest/gtest.h"
#include "state/etcd/etcd_store.h"
#include "tests/state/etcd/etcd_process.h"
#include "tests/state/store_contract.h"
#include "tests/support/status_matchers.h"

namespace sluice::state {

// A store with what it needs.
class EtcdClient {
 public:
  explicit EtcdClient(EtcdOptions options) {
    auto opened = EtcdStore::Open(
        std::move(options), clock_, [] { return 0.5; }, metrics_);
    EXPECT_THAT(opened, test::IsOk());
    store_ = *std::move(opened);
  }
  EtcdStore* operator->() { return store_.get(); }
  EtcdStore& operator*() { return *store_; }
  void Close() { store_.reset(); }

  // The sum over all series of a family whose first label is `first`; empty: of all.
  double Metric(const std::string& name, const std::string& first = "") const {
    double sum = 0;
    for (const MetricFamily& family : metrics_.Collect()) {
      for (const MetricSample& sample : family.samples) {
        if (family.name == name && (first.empty() || sample.label_values.front() == first)) sum += sample.value;
      }
    }
    return sum;
  }

 private:
  const SystemClock clock_;
  MetricsRegistry metrics_;
  std::unique_ptr<EtcdStore> store_;
};

inline EtcdOptions OptionsFor(const EtcdProcess& etcd) {
  return {.endpoints = {etcd.url()}, .prefix = "/sluice/test/", .ping_interval = std::chrono::milliseconds(300)};
}

class EtcdWorld final : public StoreWorld {
 public:
  std::shared_ptr<StateStore> Connect() override {
    auto client = std::make_shared<EtcdClient>(OptionsFor(etcd_));
    return {client, &**client};
  }

 private:
  EtcdProcess etcd_;
};

}  // namespace sluice::state
