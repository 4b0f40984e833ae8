#include "qos/quotas.h"

#include <atomic>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::IsOk;
using test::ManualClock;
using Reservation = Quotas::Reservation;

class QuotasTest : public testing::Test {
 protected:
  Quotas& Make(std::vector<QuotaRule> rules) { return quotas_.emplace(std::move(rules), clock_, metrics_); }

  absl::StatusOr<Reservation> Ask(const std::string& tenant, int prompt = 0, int output = 0,
                                  const std::string& model = "m") {
    return quotas_->Reserve({.tenant = tenant, .model = model, .prompt_tokens = prompt, .max_tokens = output});
  }
  std::string Verdict(const std::string& tenant, int prompt = 0, int output = 0, const std::string& model = "m") {
    return ReasonOf(Ask(tenant, prompt, output, model).status());
  }
  // Reserves and settles at once.
  std::string Use(const std::string& tenant, int prompt, int max_tokens, int output, const std::string& model = "m") {
    auto reservation = Ask(tenant, prompt, max_tokens, model);
    if (reservation.ok()) reservation->Settle(prompt, output);
    return ReasonOf(reservation.status());
  }
  double Metric(std::string_view name, const std::string& label = "") const {
    for (const MetricFamily& family : metrics_.Collect()) {
      if (family.name != name) continue;
      for (const MetricSample& s : family.samples) {
        if (label.empty() || s.label_values == std::vector<std::string>{label}) return s.value;
      }
    }
    return -1;
  }

  ManualClock clock_;
  MetricsRegistry metrics_;
  std::optional<Quotas> quotas_;
};

TEST_F(QuotasTest, WithoutARuleNothingIsLimited) {
  Make({{.tenant = "a", .limits = {.output_tokens_per_minute = 1}}});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Use("b", 1'000'000, 1'000'000, 1'000'000), "OK");
  EXPECT_EQ(Metric("sluice_qos_quota_tenants"), 0);  // nothing is remembered of it
}

TEST_F(QuotasTest, RequestsHaveARateAndABurst) {
  Make({{.tenant = "a", .limits = {.requests_per_second = 2, .request_burst = 5}}});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Use("a", 1, 1, 1), "OK");
  EXPECT_EQ(Use("a", 1, 1, 1), "QUOTA_REQUESTS");
  clock_.Advance(milliseconds(500));
  EXPECT_EQ(Use("a", 1, 1, 1), "OK");
  EXPECT_EQ(Use("a", 1, 1, 1), "QUOTA_REQUESTS");
  clock_.Advance(seconds(100));  // never more than the burst
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Use("a", 1, 1, 1), "OK");
  EXPECT_EQ(Use("a", 1, 1, 1), "QUOTA_REQUESTS");
  EXPECT_EQ(Metric("sluice_qos_quota_refusals_total", "QUOTA_REQUESTS"), 3);
}

TEST_F(QuotasTest, ConcurrentRequestsComeBackHoweverTheyEnd) {
  Make({{.tenant = "a", .limits = {.concurrent_requests = 2}}});
  auto first = Ask("a");
  {
    const auto second = Ask("a");
    EXPECT_EQ(Verdict("a"), "QUOTA_CONCURRENCY");
  }
  auto third = Ask("a");
  EXPECT_THAT(third, IsOk());
  EXPECT_EQ(Verdict("a"), "QUOTA_CONCURRENCY");
  first->Settle(0, 0);
  EXPECT_EQ(Verdict("a"), "OK");
  *third = Reservation();  // assigned over: given back
  auto fourth = Ask("a"), fifth = Ask("a");
  EXPECT_THAT(fourth, IsOk());
  EXPECT_THAT(fifth, IsOk());
}

TEST_F(QuotasTest, TokensAreReservedSettledAndRefill) {
  Make({{.tenant = "a", .limits = {.prompt_tokens_per_minute = 600, .output_tokens_per_minute = 1200}}});
  auto reservation = Ask("a", 500, 1000);
  EXPECT_EQ(Metric("sluice_qos_quota_reserved_tokens", "prompt"), 500);
  EXPECT_EQ(Metric("sluice_qos_quota_reserved_tokens", "output"), 1000);
  EXPECT_EQ(Verdict("a", 101, 100), "QUOTA_PROMPT_TOKENS");
  EXPECT_EQ(Verdict("a", 100, 201), "QUOTA_OUTPUT_TOKENS");
  reservation->Settle(500, 300);
  EXPECT_EQ(Metric("sluice_qos_quota_reserved_tokens", "output"), 0);
  EXPECT_EQ(Verdict("a", 1, 901), "QUOTA_OUTPUT_TOKENS");
  EXPECT_EQ(Verdict("a", 100, 900), "OK");
  clock_.Advance(seconds(10));  // 100 prompt tokens, 200 output tokens
  EXPECT_EQ(Verdict("a", 201, 1), "QUOTA_PROMPT_TOKENS");
  EXPECT_EQ(Verdict("a", 200, 1100), "OK");
}

TEST_F(QuotasTest, RetryAfterIsWhenItFits) {
  Make({{.tenant = "a", .limits = {.requests_per_second = 100, .output_tokens_per_minute = 60}}});
  EXPECT_EQ(Use("a", 0, 60, 60), "OK");
  const ErrorDetails details = GetErrorDetails(Ask("a", 0, 7).status());
  ASSERT_TRUE(details.retry_after.has_value());
  EXPECT_EQ(*details.retry_after, seconds(7));
  clock_.Advance(*details.retry_after - milliseconds(1));
  EXPECT_EQ(Verdict("a", 0, 7), "QUOTA_OUTPUT_TOKENS");
  clock_.Advance(milliseconds(1));
  EXPECT_EQ(Verdict("a", 0, 7), "OK");
}

TEST_F(QuotasTest, ARefusalNamesTenantModelLimitAndWhatIsLeft) {
  Make({{.tenant = "a", .model = "m", .limits = {.output_tokens_per_minute = 100}},
        {.tenant = "a", .limits = {.prompt_tokens_per_minute = 60}}});
  EXPECT_EQ(Use("a", 40, 70, 70), "OK");
  const absl::Status status = Ask("a", 30, 31).status();
  EXPECT_EQ(status.message(), "quota of tenant:a: prompt_tokens_per_minute: asks for 30, 20 left of 60");
  const ErrorDetails details = GetErrorDetails(status);
  ASSERT_EQ(details.violations.size(), 2U);
  EXPECT_EQ(details.violations[0].field, "tenant:a,model:m");
  EXPECT_EQ(details.violations[0].description, "output_tokens_per_minute: asks for 31, 30 left of 100");
  EXPECT_EQ(details.violations[1].field, "tenant:a");
  EXPECT_EQ(*details.retry_after, seconds(10));  // the longer wait of the two, and its reason
  EXPECT_EQ(details.reason, Reason::kQuotaPromptTokens);
}

TEST_F(QuotasTest, WhatNeverFitsSaysSo) {
  Make({{.tenant = "a", .limits = {.requests_per_second = 1, .output_tokens_per_minute = 100}}});
  EXPECT_EQ(Use("a", 0, 1, 1), "OK");
  const absl::Status status = Ask("a", 0, 101).status();  // beyond the rate too, but that would pass
  EXPECT_EQ(ReasonOf(status), "QUOTA_OUTPUT_TOKENS");
  EXPECT_FALSE(GetErrorDetails(status).retry_after.has_value());
  EXPECT_EQ(status.message(),
            "quota of tenant:a: output_tokens_per_minute: asks for 101, 99 left of 100; never enough: ask for less");
}

TEST_F(QuotasTest, TheRulesOfTheModelAndOfAllModelsBothHold) {
  Make({{.tenant = "a", .model = "big", .limits = {.output_tokens_per_minute = 100}},
        {.tenant = "a", .limits = {.output_tokens_per_minute = 150}}});
  EXPECT_EQ(Use("a", 0, 100, 100, "big"), "OK");
  EXPECT_EQ(Use("a", 0, 10, 10, "big"), "QUOTA_OUTPUT_TOKENS");
  EXPECT_EQ(Use("a", 0, 51, 51, "small"), "QUOTA_OUTPUT_TOKENS");
  EXPECT_EQ(Use("a", 0, 50, 50, "small"), "OK");
}

TEST_F(QuotasTest, OneLimitThatLacksChargesNoOther) {
  Make({{.tenant = "a", .limits = {.requests_per_second = 1, .request_burst = 2, .prompt_tokens_per_minute = 100}}});
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Verdict("a", 101, 1), "QUOTA_PROMPT_TOKENS");
  EXPECT_EQ(Use("a", 1, 1, 1), "OK");
  EXPECT_EQ(Use("a", 1, 1, 1), "OK");
}

TEST_F(QuotasTest, TenantsNoRuleNamesHaveEachTheirOwn) {
  Make({{.limits = {.output_tokens_per_minute = 10}}, {.tenant = "vip", .limits = {.output_tokens_per_minute = 50}}});
  EXPECT_EQ(Use("b", 0, 10, 10), "OK");
  EXPECT_EQ(Use("b", 0, 1, 1), "QUOTA_OUTPUT_TOKENS");
  EXPECT_EQ(Use("c", 0, 10, 10), "OK");
  EXPECT_EQ(Use("vip", 0, 50, 50), "OK");
  EXPECT_EQ(Use("vip", 0, 1, 1), "QUOTA_OUTPUT_TOKENS");
}

TEST_F(QuotasTest, NewRulesKeepWhatWasUsed) {
  Make({{.tenant = "a", .limits = {.output_tokens_per_minute = 100}}});
  EXPECT_EQ(Use("a", 0, 80, 80), "OK");
  auto open = Ask("a", 0, 20);
  quotas_->SetRules({{.tenant = "a", .limits = {.output_tokens_per_minute = 150}}});
  EXPECT_EQ(Verdict("a", 0, 51), "QUOTA_OUTPUT_TOKENS");
  EXPECT_EQ(Verdict("a", 0, 50), "OK");
  quotas_->SetRules({});
  EXPECT_EQ(Verdict("a", 0, 1000), "OK");
  open->Settle(0, 20);  // its account is gone; it keeps it
  quotas_->SetRules({{.limits = {.concurrent_requests = 1}}});
  EXPECT_EQ(Verdict("a"), "OK");
}

// --- litellm's faults ---

// #37001: max_tokens = 1 must not pass an empty bucket, nor may more than reserved go unpaid.
TEST_F(QuotasTest, WhatWasUsedBeyondTheReservationIsADebt) {
  Make({{.tenant = "a", .limits = {.output_tokens_per_minute = 60}}});
  EXPECT_EQ(Use("a", 0, 1, 180), "OK");
  EXPECT_EQ(Use("a", 0, 1, 1), "QUOTA_OUTPUT_TOKENS");
  EXPECT_EQ(Use("a", 0, 0, 0), "QUOTA_OUTPUT_TOKENS");
  clock_.Advance(seconds(120));  // pays the debt, holds nothing yet
  EXPECT_EQ(Use("a", 0, 1, 1), "QUOTA_OUTPUT_TOKENS");
  clock_.Advance(seconds(1));
  EXPECT_EQ(Use("a", 0, 1, 1), "OK");
}

TEST_F(QuotasTest, NegativeCountsAreNone) {
  Make({{.tenant = "a", .limits = {.output_tokens_per_minute = 60}}});
  auto reservation = Ask("a", -5, -1'000'000);
  reservation->Settle(-5, -1'000'000);
  EXPECT_EQ(Verdict("a", 0, 61), "QUOTA_OUTPUT_TOKENS");
}

// #29191: no floor of a reservation that a small key could never pay.
TEST_F(QuotasTest, SmallQuotasAreUsable) {
  Make({{.tenant = "a",
         .limits = {.requests_per_second = 0.1, .prompt_tokens_per_minute = 3, .output_tokens_per_minute = 3}}});
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Use("a", 3, 3, 3), "OK") << i;
    clock_.Advance(seconds(60));
  }
}

TEST_F(QuotasTest, ACancelledRequestGivesEverythingBack) {
  Make({{.tenant = "a",
         .limits = {.requests_per_second = 1, .prompt_tokens_per_minute = 100, .output_tokens_per_minute = 100}}});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Verdict("a", 100, 100), "OK");  // dropped
}

// What refilled while it ran is not given back a second time.
TEST_F(QuotasTest, ALateRefundGivesNothingAwayThatHasRefilled) {
  Make({{.tenant = "a", .limits = {.output_tokens_per_minute = 600}}});
  auto early = Ask("a", 0, 600);
  clock_.Advance(seconds(60));
  EXPECT_EQ(Use("a", 0, 600, 600), "OK");
  early->Settle(0, 0);
  EXPECT_EQ(Verdict("a", 0, 1), "QUOTA_OUTPUT_TOKENS");
}

// --- properties ---

class QuotasSeedTest : public QuotasTest, public testing::WithParamInterface<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, QuotasSeedTest, testing::Range(1U, 21U));

// Reserving much and using nothing, in any order with real use, leaves the bucket as if it had not been.
TEST_P(QuotasSeedTest, ReservationsOfNothingNeverChangeWhatIsLeft) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  std::mt19937 random(GetParam());
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  MetricsRegistry other_metrics;
  const std::vector<QuotaRule> rules = {{.tenant = "a", .limits = {.output_tokens_per_minute = 6000}}};
  Make(rules);
  Quotas plain(rules, clock_, other_metrics);
  const auto fits = [](Quotas& quotas, int n) {
    return quotas.Reserve({.tenant = "a", .model = "m", .max_tokens = n}).ok();
  };
  for (int round = 0; round < 50; ++round) {
    std::vector<Reservation> open;
    for (int i = 0; i < 40; ++i) {
      clock_.Advance(milliseconds(below(round % 2 == 0 ? 3000 : 15'000)));
      if (auto r = Ask("a", 0, 1 + below(1000)); below(2) == 0 && r.ok()) open.push_back(*std::move(r));
      if (const int n = 1 + below(1000); below(2) == 0) {
        auto real = Ask("a", 0, n);
        if (!real.ok()) continue;
        auto same = plain.Reserve({.tenant = "a", .model = "m", .max_tokens = n});
        ASSERT_THAT(same, IsOk());  // the plain one never has less
        real->Settle(0, n);
        same->Settle(0, n);
      }
      if (!open.empty() && below(2) == 0) open.erase(open.begin() + below(static_cast<int>(open.size())));
    }
    open.clear();
    for (int n = 1; n <= 6000; n += 250) ASSERT_EQ(fits(*quotas_, n), fits(plain, n)) << n << ", round " << round;
  }
}

TEST_F(QuotasTest, TwoHundredThreadsTakeNoMoreThanThereIs) {
  constexpr int kThreads = 200, kEach = 20, kTokens = 7, kQuota = 10'000;
  Make({{.tenant = "a", .limits = {.concurrent_requests = 150, .output_tokens_per_minute = kQuota}}});
  std::atomic<int> taken{0}, running{0}, most{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        auto reservation = Ask("a", 0, kTokens);
        if (!reservation.ok()) continue;
        const int now = ++running;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::yield();
        --running;
        if (i % 3 == 0) continue;  // cancelled
        taken += kTokens;
        reservation->Settle(0, kTokens);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(taken, kQuota);
  EXPECT_LE(most, 150);
  int rest = 0;
  while (Use("a", 0, 1, 1) == "OK") ++rest;
  EXPECT_EQ(taken + rest, kQuota);  // time stands still: every token is accounted for
  EXPECT_EQ(Metric("sluice_qos_quota_reserved_tokens", "output"), 0);
}

TEST_F(QuotasTest, AMillionTenantsAreNotAllRemembered) {
  Make({{.limits = {.output_tokens_per_minute = 10}}});
  auto held = Ask("held", 0, 10);
  for (int i = 0; i < 1'000'000; ++i) ASSERT_EQ(Use("tenant-" + std::to_string(i), 0, 10, 10), "OK");
  EXPECT_EQ(Metric("sluice_qos_quota_tenants"), Quotas::kMaxTenants);
  EXPECT_EQ(Use("held", 0, 10, 10), "QUOTA_OUTPUT_TOKENS");           // never forgotten
  EXPECT_EQ(Use("tenant-999999", 0, 10, 10), "QUOTA_OUTPUT_TOKENS");  // the newest are known
  EXPECT_EQ(Use("tenant-0", 0, 10, 10), "OK");
}

}  // namespace
}  // namespace sluice::qos
