#include "qos/replay.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/match.h"
#include "base/check.h"
#include "base/metrics.h"
#include "base/status.h"
#include "fmt/format.h"
#include "qos/policy_engine.h"

namespace sluice::qos {
namespace {

class RecordedClock final : public Clock {
 public:
  MonoTime Now() const override { return now; }
  WallTime WallNow() const override { return wall; }

  MonoTime now{};
  WallTime wall{};
};

std::vector<Policy> Enforced(std::vector<Policy> policies) {
  for (Policy& policy : policies) {
    if (policy.mode != PolicyMode::kDryRun) continue;
    policy.mode = PolicyMode::kEnforce;
    policy.enforced_percent = 100;
  }
  return policies;
}

}  // namespace

struct Replay::Impl {
  // A request that was let in when it was recorded and has not ended yet.
  struct Running {
    Quotas::Reservation reservation;
    std::string shed_by, shortened_by, would_shed, would_shorten;
    int max_tokens = 0, would_max_tokens = 0, prompt_tokens = 0;
  };

  explicit Impl(ReplayOptions o)
      : options(std::move(o)), engine(options.policies, clock, metrics), quotas(options.quotas, clock, metrics) {
    for (const Policy& policy : options.policies->policies()) report.policies[policy.id];
  }

  void Move(MonoTime to) {
    if (!begin) begin = to;
    clock.now = std::max(clock.now, to);
    report.period = clock.now - *begin;
  }

  void Decide(const DecisionRecord& r);
  void End(const OutcomeRecord& r);
  void Judge(const JudgementRecord& r);
  void Note(const ActionOrder& order);
  ReplayReport::Effect& EnforcedBy(std::string_view policy) { return report.policies[std::string(policy)].enforced; }
  ReplayReport::Effect& DryRunBy(std::string_view policy) { return report.policies[std::string(policy)].dry_run; }

  const ReplayOptions options;
  RecordedClock clock;
  MetricsRegistry metrics;
  PolicyEngine engine;
  Quotas quotas;
  ReplayReport report;
  std::optional<MonoTime> begin, judged;
  std::unordered_map<std::string, Running> running;  // by request id
};

void Replay::Impl::Decide(const DecisionRecord& r) {
  Move(r.at);
  clock.wall = r.wall;
  ++report.requests;
  ++report.recorded[r.verdict];
  Request request{.request_id = r.request_id,
                  .tenant = r.tenant,
                  .model = r.model,
                  .key_hash = r.key_hash,
                  .qos_class = r.qos_class,
                  .prompt_tokens = r.prompt_tokens,
                  .max_tokens = r.max_tokens,
                  .prompt_bytes = r.prompt_bytes,
                  .arrival = r.at,
                  .deadline = r.time_left == Duration::max() ? kInfiniteFuture : r.at + r.time_left,
                  .ttft_objective = r.ttft_objective};
  PolicyEffects effects;
  if (r.use != PolicyUse::kOff) effects = engine.Decide(request);
  if (ExplainActions(effects.enforced) != r.enforced || ExplainActions(effects.dry_run) != r.dry_run) ++report.differ;
  // The flag decides whether policies may act at all, and that stays as recorded, unless all are to be enforced.
  const bool acts = r.use == PolicyUse::kEnforce || (options.enforce_all && r.use == PolicyUse::kDryRun);
  if (!acts) effects.dry_run = std::exchange(effects.enforced, {});

  Running state{.max_tokens = r.max_tokens, .prompt_tokens = r.prompt_tokens};
  const PolicyEffects::Actions &now = effects.enforced, &would = effects.dry_run;
  state.would_shed = would.shed_by;
  if (!would.shed_by.empty()) ++DryRunBy(would.shed_by).shed;
  if (!would.max_tokens_by.empty() && would.max_tokens < r.max_tokens) {
    state.would_shorten = would.max_tokens_by;
    state.would_max_tokens = would.max_tokens;
    ++DryRunBy(would.max_tokens_by).shortened;
  }
  if (!would.pipeline_by.empty()) ++DryRunBy(would.pipeline_by).switched;

  bool refused = false;
  if (!now.shed_by.empty()) {
    refused = true;
    state.shed_by = now.shed_by;
    ++EnforcedBy(now.shed_by).shed;
    ++report.shed_by_class[std::string(QosClassName(r.qos_class))];
  } else {
    if (!now.max_tokens_by.empty() && now.max_tokens < r.max_tokens) {
      state.shortened_by = now.max_tokens_by;
      request.max_tokens = state.max_tokens = now.max_tokens;
      ++EnforcedBy(now.max_tokens_by).shortened;
    }
    if (!now.pipeline_by.empty()) ++EnforcedBy(now.pipeline_by).switched;
    absl::StatusOr<Quotas::Reservation> reservation = quotas.Reserve(request);
    if (reservation.ok()) {
      state.reservation = *std::move(reservation);
    } else {
      refused = true;
      ++report.quota_refusals[ReasonOf(reservation.status())];
      state.shed_by = "quota";
    }
  }
  if (r.verdict == "admitted") {
    running.insert_or_assign(r.request_id, std::move(state));
  } else if (!refused && (r.verdict == "POLICY_SHED" || absl::StartsWith(r.verdict, "QUOTA_"))) {
    ++report.let_in;
  }
}

void Replay::Impl::End(const OutcomeRecord& r) {
  Move(r.outcome.ended);
  const auto it = running.find(r.request_id);
  Running state = it == running.end() ? Running{.max_tokens = r.outcome.output_tokens} : std::move(it->second);
  if (it != running.end()) running.erase(it);
  RequestOutcome outcome = r.outcome;
  outcome.tenant = r.tenant;
  outcome.model = r.model;
  const int tokens = outcome.output_tokens;
  if (!state.would_shed.empty()) {
    DryRunBy(state.would_shed).prompt_tokens_saved += state.prompt_tokens;
    DryRunBy(state.would_shed).output_tokens_saved += tokens;
  } else if (!state.would_shorten.empty()) {
    DryRunBy(state.would_shorten).output_tokens_saved += std::max(0, tokens - state.would_max_tokens);
  }
  if (!state.shed_by.empty()) {
    if (state.shed_by != "quota") {
      EnforcedBy(state.shed_by).prompt_tokens_saved += state.prompt_tokens;
      EnforcedBy(state.shed_by).output_tokens_saved += tokens;
    }
    return;  // it would not have run
  }
  if (!state.shortened_by.empty() && tokens > state.max_tokens) {
    EnforcedBy(state.shortened_by).output_tokens_saved += tokens - state.max_tokens;
    outcome.output_tokens = state.max_tokens;
  }
  state.reservation.Settle(state.prompt_tokens, outcome.output_tokens);
  engine.Record(outcome);
}

void Replay::Impl::Note(const ActionOrder& order) {
  ReplayReport::PolicyReport& policy = report.policies[order.policy];
  policy.highest_step = std::max(policy.highest_step, order.step);
  if (order.begins) ++policy.actions;
  if (report.steps.size() >= ReplayReport::kMaxSteps) {
    ++report.steps_left_out;
    return;
  }
  report.steps.push_back({.at = clock.now - *begin,
                          .policy = order.policy,
                          .metric = order.metric,
                          .what = fmt::format("step {} {}: {}", order.step, order.begins ? "begins" : "ends",
                                              ActionName(order.action.kind)),
                          .value = order.value,
                          .threshold = order.threshold,
                          .dry_run = order.dry_run});
}

void Replay::Impl::Judge(const JudgementRecord& r) {
  Move(r.at);
  for (const ActionOrder& order : engine.Evaluate(r.state)) Note(order);
  const Duration since = judged ? clock.now - *judged : Duration::zero();
  judged = clock.now;
  for (const PolicyStatus& policy : engine.Status()) {
    for (const auto& objective : policy.objectives) {
      if (objective.state == ObjectiveState::kViolated) report.policies[policy.id].violated[objective.metric] += since;
    }
  }
}

Replay::Replay(ReplayOptions options) {
  SLUICE_CHECK(options.policies != nullptr, "there is something to replay");
  if (options.enforce_all) {
    auto all = PolicySet::Create(Enforced(options.policies->policies()), options.policies->epoch());
    SLUICE_CHECK(all.ok(), "a valid set stays valid when it is enforced whole");
    options.policies = *std::move(all);
  }
  impl_ = std::make_unique<Impl>(std::move(options));
}

Replay::~Replay() = default;

void Replay::Add(const QosRecord& record) {
  if (const auto* decision = std::get_if<DecisionRecord>(&record)) return impl_->Decide(*decision);
  if (const auto* outcome = std::get_if<OutcomeRecord>(&record)) return impl_->End(*outcome);
  impl_->Judge(std::get<JudgementRecord>(record));
}

ReplayReport Replay::Finish() {
  impl_->running.clear();
  return std::move(impl_->report);
}

}  // namespace sluice::qos
