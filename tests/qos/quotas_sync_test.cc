// Quotas of replicas that share a store.
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "qos/quota_usage.h"
#include "qos/quotas.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_store.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

using std::chrono::seconds;
using test::IsOk;
using test::ManualClock;
using test::MemoryStore;

struct Replica {
  Replica(int64_t tokens, const Clock& clock, MemoryStore& store)
      : quotas({{.limits = {.output_tokens_per_minute = tokens}}}, clock, metrics, &store) {}
  bool Use(int tokens, const std::string& tenant = "a") {
    auto reservation = quotas.Reserve({.tenant = tenant, .model = "m", .max_tokens = tokens});
    if (reservation.ok()) reservation->Settle(0, tokens);
    return reservation.ok();
  }
  int UseAll(const std::string& tenant = "a") {
    int used = 0;
    while (Use(1, tenant)) ++used;
    return used;
  }
  double Stale() const {
    for (const MetricFamily& family : metrics.Collect()) {
      if (family.name == "sluice_qos_quota_stale") return family.samples[0].value;
    }
    return -1;
  }
  MetricsRegistry metrics;
  Quotas quotas;
};

class QuotasSyncTest : public testing::Test {
 protected:
  void SyncBoth() {
    one_.quotas.Sync();
    two_.quotas.Sync();
    one_.quotas.Sync();
  }
  ManualClock clock_;
  MemoryStore store_;
  Replica one_{600, clock_, store_}, two_{600, clock_, store_};
};

TEST_F(QuotasSyncTest, OneReplicaKnowsWhatTheOtherLetIn) {
  EXPECT_TRUE(one_.Use(400));
  EXPECT_TRUE(two_.Use(1));
  SyncBoth();
  EXPECT_EQ(two_.UseAll(), 199);
  SyncBoth();
  EXPECT_EQ(one_.UseAll(), 0);
  clock_.Advance(seconds(10));  // refills once, not once for each
  SyncBoth();
  EXPECT_EQ(one_.UseAll(), 100);
  SyncBoth();
  EXPECT_EQ(two_.UseAll(), 0);
}

TEST_F(QuotasSyncTest, WhatOneTookTooMuchIsADebtOfBoth) {
  EXPECT_EQ(one_.UseAll() + two_.UseAll(), 1200);  // the bound: (2 - 1) times what was left
  SyncBoth();
  clock_.Advance(seconds(60));
  EXPECT_EQ(one_.UseAll() + two_.UseAll(), 0);
  clock_.Advance(seconds(1));
  EXPECT_EQ(one_.UseAll(), 10);
}

// Any load on three replicas that sync once a second: never more than quota and refill plus the stated bound.
TEST_F(QuotasSyncTest, OverTimeNoMoreThanTheBoundIsLetIn) {
  Replica three(600, clock_, store_);
  int used = 0;
  for (int second = 0; second < 300; ++second) {
    used += one_.UseAll() + two_.UseAll() + three.UseAll();
    SyncBoth();
    three.quotas.Sync();
    one_.quotas.Sync();
    two_.quotas.Sync();
    const int refilled = 10 * second;
    ASSERT_LE(used, 600 + refilled + 2 * (600 + 10)) << second;
    clock_.Advance(seconds(1));
  }
  EXPECT_GE(used, 600 + 10 * 280);  // and what there is gets used
}

TEST_F(QuotasSyncTest, ANewReplicaLearnsBeforeItsFirstRequest) {
  EXPECT_TRUE(one_.Use(600));
  one_.quotas.Sync();
  Replica restarted(600, clock_, store_);
  restarted.Use(1);  // it does not know the tenant before
  restarted.quotas.Sync();
  EXPECT_EQ(restarted.UseAll(), 0);
}

TEST_F(QuotasSyncTest, ALostStoreKeepsWhatWasKnown) {
  EXPECT_TRUE(one_.Use(500));
  EXPECT_TRUE(two_.Use(1));
  SyncBoth();
  store_.SetFault(absl::UnavailableError("gone"));
  EXPECT_TRUE(one_.Use(40));
  SyncBoth();
  EXPECT_EQ(one_.Stale(), 1);
  EXPECT_EQ(one_.UseAll(), 59);  // its own goes on counting
  EXPECT_EQ(two_.UseAll(), 99);  // last known
  store_.SetFault(absl::OkStatus());
  SyncBoth();
  EXPECT_EQ(one_.Stale(), 0);
  clock_.Advance(seconds(9));  // 99 too many, 10 a second
  SyncBoth();
  EXPECT_EQ(one_.UseAll(), 0);
  clock_.Advance(seconds(1));
  EXPECT_EQ(one_.UseAll(), 1);
}

TEST_F(QuotasSyncTest, WhatIsGivenBackIsGivenBackEverywhere) {
  {
    auto open = one_.quotas.Reserve({.tenant = "a", .model = "m", .max_tokens = 600});
    ASSERT_THAT(open, IsOk());
    EXPECT_TRUE(two_.Use(1));
    SyncBoth();
    EXPECT_EQ(two_.UseAll(), 0);
  }
  one_.quotas.Sync();
  EXPECT_EQ(two_.UseAll(), 0);  // has not heard yet
  two_.quotas.Sync();
  EXPECT_EQ(two_.UseAll(), 599);
}

TEST_F(QuotasSyncTest, ReplicasThatSyncAtOnceLoseNothing) {
  constexpr int kReplicas = 4, kRounds = 50;
  std::vector<std::unique_ptr<Replica>> replicas;
  for (int i = 0; i < kReplicas; ++i) replicas.push_back(std::make_unique<Replica>(1'000'000, clock_, store_));
  std::vector<std::thread> threads;
  for (auto& replica : replicas) {
    threads.emplace_back([&replica] {
      for (int i = 0; i < kRounds; ++i) {
        EXPECT_TRUE(replica->Use(3));
        replica->quotas.Sync();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 2; ++i) {
    for (auto& replica : replicas) replica->quotas.Sync();  // what gave up after its tries
  }
  Replica reader(1'000'000, clock_, store_);
  EXPECT_TRUE(reader.Use(1));
  reader.quotas.Sync();
  const int left = 1'000'000 - kReplicas * kRounds * 3 - 1;
  EXPECT_FALSE(reader.Use(left + 1));
  EXPECT_TRUE(reader.Use(left));
}

TEST(QuotaUsageTest, LinesComeBackAndDamagedOnesAreLeftOut) {
  const QuotaUsages usages = {{{"a\tb\n", "*"}, {{1, 2.5, 3}, 5'000'000}}, {{"c", "m"}, {{0, 0, 7}, 5'000'001}}};
  const std::string text = FormatQuotaUsage(usages, 5'000'002);
  EXPECT_EQ(ParseQuotaUsage(text), usages);
  EXPECT_EQ(ParseQuotaUsage("x\ty\nz\t*\t1\t-1\t0\t0\nq\t*\t1\tnan\t0\t0\n" + text), usages);
  EXPECT_EQ(FormatQuotaUsage({{{"a", "*"}, {{0, 0, 0}, 5'000'000}}}, 5'000'000), "");      // full
  EXPECT_EQ(FormatQuotaUsage({{{"a", "*"}, {{0, 0, 9}, 5'000'000}}}, 5'000'000'000), "");  // long ago
}

TEST(QuotaUsageTest, AShardFitsIntoTheStore) {
  QuotaUsages usages;
  for (int i = 0; i < 20'000; ++i) usages[{std::string(100, 'x') + std::to_string(i), "*"}] = {{1, 1, 1}, 1};
  const std::string text = FormatQuotaUsage(usages, 1);
  EXPECT_LE(text.size(), state::kMaxValueBytes);
  EXPECT_GT(text.size(), state::kMaxValueBytes - 200);
  EXPECT_GT(ParseQuotaUsage(text).size(), 5'000U);
}

}  // namespace
}  // namespace sluice::qos
