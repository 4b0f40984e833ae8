#include "qos/policy_effects.h"

#include <algorithm>

#include "qos/policy_bucket.h"

namespace sluice::qos {
namespace {

// What an action in dry_run would add to the enforced ones; `out` loses what it would not.
void LeaveOnlyWhatIsAdded(const PolicyEffects::Actions& enforced, PolicyEffects::Actions* out) {
  if (!enforced.shed_by.empty()) out->shed_by = {};
  if (!enforced.max_tokens_by.empty() && enforced.max_tokens <= out->max_tokens) {
    out->max_tokens_by = {};
    out->max_tokens = 0;
  }
  if (enforced.pipeline == out->pipeline) out->pipeline_by = out->pipeline = {};
  if (enforced.upstream == out->upstream) out->upstream_by = out->upstream = {};
}

ClassCaps CapsOf(const PolicySet& set, const std::vector<int>& steps) {
  ClassCaps caps;
  caps.fill(kNoClassCap);
  for (size_t i = 0; i < set.policies().size(); ++i) {
    const Policy& policy = set.policies()[i];
    if (policy.mode != PolicyMode::kEnforce) continue;
    for (int step = 0; step < steps[i]; ++step) {
      const Action& action = policy.ladder[static_cast<size_t>(step)];
      if (action.kind != ActionKind::kQueue) continue;
      for (size_t c = 0; c < caps.size(); ++c) {
        if ((action.classes >> c & 1) != 0) caps[c] = std::min(caps[c], action.limit);
      }
    }
  }
  return caps;
}

}  // namespace

ActingPolicies::Entry ActingPolicies::EntryOf(const Policy& policy, int step) {
  Entry entry{.id = policy.id, .hash = StableHash(policy.id)};
  if (policy.mode == PolicyMode::kEnforce) entry.threshold = PolicyThreshold(policy.enforced_percent);
  for (int i = 0; i < step; ++i) {
    const Action& action = policy.ladder[static_cast<size_t>(i)];
    if (action.kind == ActionKind::kShed) entry.shed |= action.classes;
    if (action.kind == ActionKind::kLimitMaxTokens) entry.max_tokens = action.limit;
    if (action.kind == ActionKind::kSwitchPipeline) entry.pipeline = action.target;
    if (action.kind == ActionKind::kPreferUpstream) entry.upstream = action.target;
  }
  return entry;
}

ActingPolicies::ActingPolicies(std::shared_ptr<const PolicySet> set, const std::vector<int>& steps)
    : set_(std::move(set)), scopes_({}), class_caps_(CapsOf(*set_, steps)) {
  std::vector<const Scope*> scopes;
  for (size_t i = 0; i < set_->policies().size(); ++i) {
    const Policy& policy = set_->policies()[i];
    Entry entry = EntryOf(policy, steps[i]);
    const bool acts = entry.shed != 0 || entry.max_tokens != 0 || !entry.pipeline.empty() || !entry.upstream.empty();
    if (policy.mode == PolicyMode::kOff || !acts) continue;
    entries_.push_back(entry);
    scopes.push_back(&policy.acted_on());
  }
  scopes_ = ScopeIndex(scopes);
}

// A pipeline or upstream that an enforced policy of higher priority chose stays, so nobody else would change it.
void ActingPolicies::Apply(const Entry& entry, const Request& request, const PolicyEffects::Actions& enforced,
                           PolicyEffects::Actions* out) {
  if ((entry.shed >> static_cast<int>(request.qos_class) & 1) != 0 && out->shed_by.empty()) out->shed_by = entry.id;
  const bool cuts = entry.max_tokens > 0 && (request.max_tokens <= 0 || entry.max_tokens < request.max_tokens);
  if (cuts && (out->max_tokens_by.empty() || entry.max_tokens < out->max_tokens)) {
    out->max_tokens_by = entry.id;
    out->max_tokens = entry.max_tokens;
  }
  if (!entry.pipeline.empty() && out->pipeline_by.empty() && enforced.pipeline_by.empty()) {
    out->pipeline_by = entry.id;
    out->pipeline = entry.pipeline;
  }
  if (!entry.upstream.empty() && out->upstream_by.empty() && enforced.upstream_by.empty()) {
    out->upstream_by = entry.id;
    out->upstream = entry.upstream;
  }
}

PolicyEffects ActingPolicies::Decide(const Request& request) const {
  PolicyEffects out{.epoch = set_->epoch()};
  if (entries_.empty()) return out;
  const bool keyed = request.key_hash != 0;
  scopes_.Match(request.tenant, request.model, request.qos_class).ForEach([&](size_t i) {
    const Entry& entry = entries_[i];
    const bool enforced =
        entry.threshold == kPolicyBuckets ||
        (entry.threshold > 0 && keyed && PolicyBucket(entry.hash, request.key_hash) < entry.threshold);
    Apply(entry, request, out.enforced, enforced ? &out.enforced : &out.dry_run);
  });
  LeaveOnlyWhatIsAdded(out.enforced, &out.dry_run);
  return out;
}

bool ActingPolicies::Any(const PolicyEffects& effects) {
  const auto any = [](const PolicyEffects::Actions& actions) {
    return !actions.shed_by.empty() || !actions.max_tokens_by.empty() || !actions.pipeline_by.empty() ||
           !actions.upstream_by.empty();
  };
  return any(effects.enforced) || any(effects.dry_run);
}

}  // namespace sluice::qos
