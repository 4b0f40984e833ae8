#include "qos/replay.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "qos/admission.h"
#include "qos/qos_engine.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::IsOk;
using test::ManualClock;

// Slow first tokens: first shorter answers, then no batch.
Policy SlowPolicy(PolicyMode mode) {
  return {.id = "slow",
          .mode = mode,
          .objectives = {{.metric = "ttft_p95_ms",
                          .signal = Signal::kTtft,
                          .quantile = 0.95,
                          .threshold = 500,
                          .window = seconds(10),
                          .min_samples = 5}},
          .ladder = {{.kind = ActionKind::kLimitMaxTokens, .limit = 16},
                     {.kind = ActionKind::kShed, .classes = 1 << static_cast<int>(QosClass::kBatch)}},
          .cooldown = seconds(2),
          .recovered_for = seconds(5)};
}

std::shared_ptr<const PolicySet> Set(std::vector<Policy> policies) {
  auto set = PolicySet::Create(std::move(policies), 1);
  EXPECT_THAT(set, IsOk());
  return *std::move(set);
}

class Recorder final : public QosObserver {
 public:
  void Recorded(const QosRecord& record) override { records.push_back(record); }
  std::vector<QosRecord> records;
};

// The production engine under a manual clock: overload from 5 to 20 s, calm before and after.
class ReplayTest : public testing::Test {
 protected:
  void Record(const std::shared_ptr<const PolicySet>& policies, std::vector<QuotaRule> quota_rules = {}) {
    MetricsRegistry metrics;
    ManualClock clock;
    Admission admission({}, clock, metrics);
    PolicyEngine engine(policies, clock, metrics);
    Quotas quotas(std::move(quota_rules), clock, metrics);
    DecisionLog log(10, &recorder_);
    OverloadGuard guard({}, metrics);
    RetryBudget retries({}, clock, metrics);
    QosEngine qos({engine, quotas, admission, guard, retries, log, clock});
    const MonoTime begin = clock.Now();
    for (int i = 0; i < 600; ++i) {  // 20 requests a second, 30 s
      const Duration at = clock.Now() - begin;
      const bool overload = at >= seconds(5) && at < seconds(20);
      const std::string id = "r" + std::to_string(i);
      Grant grant;
      absl::Status admitted;
      qos.Admit({.request_id = id,
                 .tenant = i % 3 == 0 ? "acme" : "other",
                 .model = "default",
                 .key_hash = static_cast<uint64_t>(i),
                 .qos_class = i % 2 == 0 ? QosClass::kBatch : QosClass::kInteractive,
                 .prompt_tokens = 100,
                 .max_tokens = 64,
                 .arrival = clock.Now()},
                {}, PolicyUse::kEnforce, grant, [&](const absl::Status& s) { admitted = s; });
      if (admitted.ok()) {
        const int tokens = std::min(grant.max_tokens, 64);
        qos.Settle(grant, {.request_id = id,
                           .outcome = Outcome::kSuccess,
                           .sample = {.tenant = i % 3 == 0 ? "acme" : "other",
                                      .model = "default",
                                      .qos_class = i % 2 == 0 ? QosClass::kBatch : QosClass::kInteractive,
                                      .ended = clock.Now(),
                                      .ttft = overload ? milliseconds(900) : milliseconds(100),
                                      .output_tokens = tokens},
                           .prompt_tokens = 100});
      }
      clock.Advance(milliseconds(50));
      if (i % 5 == 4) qos.Evaluate({.running = 0, .queued = 0});
    }
  }

  ReplayReport Under(ReplayOptions options) {
    Replay replay(std::move(options));
    for (const QosRecord& record : recorder_.records) replay.Add(record);
    return replay.Finish();
  }

  Recorder recorder_;
};

TEST_F(ReplayTest, TheSamePoliciesDecideTheSame) {
  for (const PolicyMode mode : {PolicyMode::kDryRun, PolicyMode::kEnforce}) {
    recorder_.records.clear();
    const auto policies = Set({SlowPolicy(mode)});
    Record(policies);
    const ReplayReport report = Under({.policies = policies});
    EXPECT_EQ(report.requests, 600U);
    EXPECT_EQ(report.differ, 0U) << PolicyModeName(mode);
    EXPECT_EQ(report.policies.at("slow").highest_step, 2) << "the overload was meant to be seen";
  }
}

TEST_F(ReplayTest, SaysWhatDryRunWouldHaveTakenAway) {
  Record(Set({SlowPolicy(PolicyMode::kDryRun)}));
  const ReplayReport report = Under({.policies = Set({SlowPolicy(PolicyMode::kDryRun)})});
  EXPECT_EQ(report.recorded.at("admitted"), 600U);
  const auto& slow = report.policies.at("slow");
  EXPECT_EQ(slow.enforced.shed + slow.enforced.shortened, 0U);
  EXPECT_GT(slow.dry_run.shed, 50U);
  EXPECT_GT(slow.dry_run.shortened, 50U);
  // Each shed request had computed 100 and produced 64 tokens, each one that was only shortened would save 48.
  EXPECT_EQ(slow.dry_run.prompt_tokens_saved, static_cast<int64_t>(100 * slow.dry_run.shed));
  EXPECT_GE(slow.dry_run.output_tokens_saved, static_cast<int64_t>(64 * slow.dry_run.shed));
  EXPECT_GT(slow.violated.at("ttft_p95_ms"), seconds(10));
}

TEST_F(ReplayTest, EnforcingThemAllTakesTheirRequestsOutOfTheWindows) {
  Record(Set({SlowPolicy(PolicyMode::kDryRun)}));
  const ReplayReport report = Under({.policies = Set({SlowPolicy(PolicyMode::kDryRun)}), .enforce_all = true});
  const auto& slow = report.policies.at("slow");
  EXPECT_GT(slow.enforced.shed, 50U);
  EXPECT_EQ(slow.dry_run.shed, 0U);
  EXPECT_EQ(report.shed_by_class.at("batch"), slow.enforced.shed);
  EXPECT_GT(report.differ, 0U);
}

TEST_F(ReplayTest, QuotasRefuseAndWhatWasRefusedIsLetIn) {
  const auto none = Set({});
  Record(none);
  EXPECT_EQ(Under({.policies = none}).quota_refusals.size(), 0U);
  const std::vector<QuotaRule> rules = {{.tenant = "acme", .limits = {.requests_per_second = 1, .request_burst = 1}}};
  const ReplayReport stricter = Under({.policies = none, .quotas = rules});
  EXPECT_NEAR(static_cast<double>(stricter.quota_refusals.at("QUOTA_REQUESTS")), 200 - 30, 3);

  recorder_.records.clear();
  Record(none, rules);
  const ReplayReport looser = Under({.policies = none});
  EXPECT_EQ(looser.let_in, looser.recorded.at("QUOTA_REQUESTS"));
}

}  // namespace
}  // namespace sluice::qos
