// Admission, circuit breaker and policies: what a request pays to be let in, to be judged and to be settled.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "fmt/format.h"
#include "loadtest/components/measure.h"
#include "qos/admission.h"
#include "qos/breaker_registry.h"
#include "qos/policy_bucket.h"
#include "qos/policy_engine.h"
#include "qos/quotas.h"

namespace sluice::components {
namespace {

using qos::Admission;
using qos::Answer;
using qos::Outcome;
using qos::Permit;

const SystemClock kClock;

// What the request flow hands over, from a request that is there already.
struct Request {
  std::string request_id = "0b7e1c52-9f3d-4a68-8c15-d2e94f7a6b30", tenant = "tenant-a", model = "default";

  qos::Request Ask() const {
    return {.request_id = request_id, .tenant = tenant, .model = model, .arrival = kClock.Now()};
  }
};

// Admit and settle while there is room.
void AdmitSettle(benchmark::State& state) {
  static MetricsRegistry metrics;
  static Admission admission({}, kClock, metrics);
  const Request request;
  std::optional<Permit> permit;
  Measure(state, [&] {
    admission.Admit(request.Ask(), nullptr, [&permit](Answer answer) { permit.emplace(*std::move(answer)); });
    permit->Settle(Outcome::kSuccess);
  });
}
BENCHMARK(AdmitSettle)->Name("qos/admit_settle")->ThreadRange(1, 2);

// Every permit is taken and `queued` requests wait; all of one class.
struct Busy {
  explicit Busy(int queued) {
    for (int i = 0; i < options.max_concurrent + queued; ++i) Admit();
  }
  ~Busy() { admission.StartDrain({}); }

  // The newest permit stands in for the running ones; the others are settled when dropped.
  void Admit() {
    admission.Admit(request.Ask(), nullptr, [this](Answer answer) {
      if (answer.ok()) permits.push_back(*std::move(answer));
    });
  }
  void SettleOne() {
    Permit permit = std::move(permits.back());
    permits.pop_back();
    permit.Settle(Outcome::kSuccess);
  }

  const qos::AdmissionOptions options{.queue_timeout = std::chrono::hours(1),
                                      .default_deadline = std::chrono::hours(1)};
  const Request request;
  MetricsRegistry metrics;
  Admission admission{options, kClock, metrics};
  std::vector<Permit> permits;
};

// The queue is full: one is settled, the oldest waiting one takes its place, a newcomer takes the free queue place.
void HandOver(benchmark::State& state) {
  Busy busy(qos::AdmissionOptions{}.max_queue);
  Measure(state, [&] {
    busy.SettleOne();
    busy.Admit();
  });
}
BENCHMARK(HandOver)->Name("qos/full_queue_hand_over");

// The queue is full: a newcomer of the same class is refused, with reason, numbers and a time to come back.
void Refuse(benchmark::State& state) {
  Busy busy(qos::AdmissionOptions{}.max_queue);
  Measure(state, [&] { busy.Admit(); });
}
BENCHMARK(Refuse)->Name("qos/full_queue_refuse");

// One call through the breaker of a model and pipeline, found in the registry as for each request.
void Breaker(benchmark::State& state) {
  static MetricsRegistry metrics;
  static qos::BreakerRegistry breakers({}, kClock, metrics);
  Measure(state, [&] {
    std::optional<qos::CircuitBreaker::Call> call = breakers.Get("default", "baseline").TryAcquire();
    call->Report(qos::CallOutcome::kSuccess, Duration(1));
  });
}
BENCHMARK(Breaker)->Name("qos/breaker")->ThreadRange(1, 2);

// 50 policies, each naming 20 of 1,000 tenants, half of them enforced for half of the keys; a request meets one of each
// five policies that name nobody, and one that names its tenant. All at the top of their ladders, or none violated.
class Policies {
 public:
  static constexpr int kPolicies = 50, kTenants = 1000;

  explicit Policies(bool violated) {
    std::vector<qos::Policy> policies;
    for (int i = 0; i < kPolicies; ++i) policies.push_back(Make(i));
    engine_ = std::make_unique<qos::PolicyEngine>(*qos::PolicySet::Create(std::move(policies), 1), kClock, metrics_);
    for (int i = 0; i < 2; ++i) engine_->Evaluate({.queued = violated ? 1.0 : 0.0});
    for (int i = 0; i < kTenants; ++i) tenants_.push_back(fmt::format("tenant-{:04}-of-some-length", i));
    uint64_t state = 1;
    const bool acts = engine_->Decide(Next(state)).snapshot != nullptr;
    SLUICE_CHECK(acts == violated, "the policies act when they are violated");
  }

  // The same for all threads and repetitions.
  static const Policies& Shared(bool violated) {
    static const Policies yes(true), no(false);
    return violated ? yes : no;
  }

  const qos::PolicyEngine& engine() const { return *engine_; }
  // Some request; `state` is the thread's.
  qos::Request Next(uint64_t& state) const {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const uint64_t high = state >> 33;
    return {.tenant = tenants_[high % kTenants],
            .model = "default",
            .key_hash = state | 1,
            .qos_class = static_cast<qos::QosClass>(1 + high % 3),
            .max_tokens = 1000};
  }

 private:
  static qos::Policy Make(int i) {
    const auto batch = static_cast<uint8_t>(1 << static_cast<int>(qos::QosClass::kBatch));
    qos::Policy policy{.id = fmt::format("policy-{}", i), .mode = qos::PolicyMode::kEnforce, .priority = i % 7};
    policy.enforced_percent = i % 2 == 0 ? 50 : 100;
    policy.cooldown = Duration::zero();
    policy.objectives = {{.metric = "queued_requests", .signal = qos::Signal::kQueued, .threshold = 0.5}};
    policy.ladder = {{.kind = qos::ActionKind::kLimitMaxTokens, .limit = 100 + i},
                     {.kind = qos::ActionKind::kShed, .classes = batch}};
    if (i % 5 == 0) return policy;
    for (int t = 0; t < 20; ++t) {
      policy.scope.tenants.insert(fmt::format("tenant-{:04}-of-some-length", (i * 20 + t) % kTenants));
    }
    return policy;
  }

  MetricsRegistry metrics_;
  std::unique_ptr<qos::PolicyEngine> engine_;
  std::vector<std::string> tenants_;
};

void Decide(benchmark::State& state, bool violated) {
  const Policies& policies = Policies::Shared(violated);
  uint64_t random = 1;
  Measure(state, [&] { benchmark::DoNotOptimize(policies.engine().Decide(policies.Next(random))); });
}
BENCHMARK_CAPTURE(Decide, all_violated, true)->Name("qos/policy_decide_all_violated")->ThreadRange(1, 2);
BENCHMARK_CAPTURE(Decide, none_violated, false)->Name("qos/policy_decide_none_violated")->ThreadRange(1, 2);

// As the worst: each policy names nobody, so that all 50 meet in every request, all violated.
void DecideAllMeet(benchmark::State& state) {
  std::vector<qos::Policy> policies;
  for (int i = 0; i < Policies::kPolicies; ++i) {
    qos::Policy policy{.id = fmt::format("policy-{}", i), .mode = qos::PolicyMode::kEnforce};
    policy.enforced_percent = 50;
    policy.objectives = {{.metric = "queued_requests", .signal = qos::Signal::kQueued, .threshold = 0.5}};
    policy.ladder = {{.kind = qos::ActionKind::kLimitMaxTokens, .limit = 100 + i}};
    policies.push_back(std::move(policy));
  }
  MetricsRegistry metrics;
  qos::PolicyEngine engine(*qos::PolicySet::Create(std::move(policies), 1), kClock, metrics);
  engine.Evaluate({.queued = 1});
  uint64_t key = 1;
  Measure(state, [&] {
    key = key * 0x9e3779b97f4a7c15ULL | 1;
    benchmark::DoNotOptimize(
        engine.Decide({.tenant = "tenant", .model = "default", .key_hash = key, .max_tokens = 1000}));
  });
}
BENCHMARK(DecideAllMeet)->Name("qos/policy_decide_50_meet");

// What a decision is measured against: a virtual call that returns a constant (two of them, else nobody is called).
class Decider {
 public:
  virtual ~Decider() = default;
  virtual bool Decide(const qos::Request& request) const = 0;
};
template <bool kAnswer>
class Constant : public Decider {
 public:
  bool Decide(const qos::Request&) const override { return kAnswer; }
};
void VirtualConstant(benchmark::State& state) {
  const Policies& policies = Policies::Shared(false);
  uint64_t random = 1;
  std::unique_ptr<const Decider> decider = std::make_unique<Constant<true>>();
  if (state.range(0) == 0) decider = std::make_unique<Constant<false>>();
  Measure(state, [&] {
    const Decider* asked = decider.get();
    benchmark::DoNotOptimize(asked);
    benchmark::DoNotOptimize(asked->Decide(policies.Next(random)));
  });
}
BENCHMARK(VirtualConstant)->Name("qos/virtual_constant")->Arg(1);

// What an ended request pays; the buffers are folded in between, untimed.
void RecordOutcome(benchmark::State& state) {
  MetricsRegistry metrics;
  std::vector<qos::Policy> policies;
  for (int i = 0; i < Policies::kPolicies; ++i) {
    policies.push_back({.id = fmt::format("policy-{}", i)});
    policies.back().objectives = {{.metric = "ttft_p95_ms", .quantile = 0.95, .threshold = 1e6}};
  }
  qos::PolicyEngine engine(*qos::PolicySet::Create(std::move(policies), 1), kClock, metrics);
  int recorded = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (++recorded % 8000 == 0) {
      state.PauseTiming();
      engine.Evaluate({});
      state.ResumeTiming();
    }
    engine.Record({.tenant = "tenant", .model = "default", .ended = MonoTime(Duration(1)), .ttft = Duration(1)});
  }
}
BENCHMARK(RecordOutcome)->Name("qos/policy_record");

// One look at 50 policies with full windows (lognormal over three decades).
void Evaluate(benchmark::State& state) {
  MetricsRegistry metrics;
  std::vector<qos::Policy> policies;
  for (int i = 0; i < Policies::kPolicies; ++i) {
    policies.push_back({.id = fmt::format("policy-{}", i)});
    policies.back().objectives = {{.metric = "ttft_p95_ms", .quantile = 0.95, .threshold = 1e6}};
    policies.back().objectives[0].window = std::chrono::hours(1);
  }
  qos::PolicyEngine engine(*qos::PolicySet::Create(std::move(policies), 1), kClock, metrics);
  const MonoTime now = kClock.Now();
  for (int i = 0; i < 6000; ++i) {
    engine.Record({.ended = now - std::chrono::milliseconds(550) * i, .ttft = std::chrono::microseconds(1000 + i * i)});
  }
  Measure(state, [&] { benchmark::DoNotOptimize(engine.Evaluate({})); });
}
BENCHMARK(Evaluate)->Name("qos/policy_evaluate");

// Reserve and settle under a rule for the model and one for all models; without a rule; and beyond the quota.
enum class Quota { kTwoRules, kNoRule, kUsedUp };
void ReserveSettle(benchmark::State& state, Quota quota) {
  MetricsRegistry metrics;
  constexpr int64_t kMany = 1'000'000'000'000;
  const qos::QuotaLimits limits{.requests_per_second = 1e9,
                                .concurrent_requests = 1000,
                                .prompt_tokens_per_minute = kMany,
                                .output_tokens_per_minute = quota == Quota::kUsedUp ? 63 : kMany};
  std::vector<qos::QuotaRule> rules = {{.model = "default", .limits = limits}, {.limits = limits}};
  if (quota == Quota::kNoRule) rules.clear();
  qos::Quotas quotas(std::move(rules), kClock, metrics);
  const qos::Request request{.tenant = "tenant-a", .model = "default", .prompt_tokens = 500, .max_tokens = 64};
  Measure(state, [&] {
    auto reservation = quotas.Reserve(request);
    if (reservation.ok()) reservation->Settle(500, 40);
    benchmark::DoNotOptimize(reservation);
  });
}
BENCHMARK_CAPTURE(ReserveSettle, two_rules, Quota::kTwoRules)->Name("qos/quota_reserve_settle");
BENCHMARK_CAPTURE(ReserveSettle, no_rule, Quota::kNoRule)->Name("qos/quota_no_rule");
BENCHMARK_CAPTURE(ReserveSettle, used_up, Quota::kUsedUp)->Name("qos/quota_refuse");

}  // namespace
}  // namespace sluice::components
