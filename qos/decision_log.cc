#include "qos/decision_log.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "fmt/format.h"

namespace sluice::qos {
namespace {

bool Names(std::string_view actions, std::string_view policy) {
  for (size_t at = actions.find(policy); at != std::string_view::npos; at = actions.find(policy, at + 1)) {
    const size_t end = at + policy.size();
    if (at > 0 && actions[at - 1] == ':' && (end == actions.size() || actions[end] == ',')) return true;
  }
  return false;
}

bool Matches(const DecisionRecord& r, const DecisionLog::Filter& f) {
  const auto is = [](const std::string& wanted, const std::string& found) { return wanted.empty() || wanted == found; };
  return is(f.tenant, r.tenant) && is(f.model, r.model) && is(f.verdict, r.verdict) && is(f.request_id, r.request_id) &&
         (f.policy.empty() || Names(r.enforced, f.policy) || Names(r.dry_run, f.policy));
}

}  // namespace

std::string_view PolicyUseName(PolicyUse use) {
  switch (use) {
    case PolicyUse::kOff:
      return "off";
    case PolicyUse::kDryRun:
      return "dry_run";
    case PolicyUse::kEnforce:
      return "enforce";
  }
  return "off";
}

std::string ExplainActions(const PolicyEffects::Actions& actions) {
  std::string text;
  const auto add = [&text](std::string_view what, std::string_view policy) {
    if (policy.empty()) return;
    if (!text.empty()) text += ',';
    text += fmt::format("{}:{}", what, policy);
  };
  add("shed", actions.shed_by);
  if (!actions.max_tokens_by.empty()) add(fmt::format("max_tokens={}", actions.max_tokens), actions.max_tokens_by);
  if (!actions.pipeline_by.empty()) add(fmt::format("pipeline={}", actions.pipeline), actions.pipeline_by);
  if (!actions.upstream_by.empty()) add(fmt::format("upstream={}", actions.upstream), actions.upstream_by);
  return text;
}

DecisionLog::DecisionLog(size_t capacity, QosObserver* observer) : capacity_(capacity), observer_(observer) {
  SLUICE_CHECK(capacity >= 1, "the log keeps at least one decision");
}

void DecisionLog::Add(DecisionRecord record) {
  MutexLock lock(mu_);
  record.id = ++last_id_;
  const size_t at = (record.id - 1) % capacity_;
  if (ring_.size() <= at) ring_.resize(at + 1);
  if (observer_ == nullptr) {
    ring_[at] = std::move(record);
    return;
  }
  const QosRecord recorded = std::move(record);
  observer_->Recorded(recorded);
  ring_[at] = std::get<DecisionRecord>(recorded);
}

void DecisionLog::Add(OutcomeRecord record) {
  if (observer_ == nullptr) return;
  MutexLock lock(mu_);
  observer_->Recorded(std::move(record));
}

void DecisionLog::Add(const JudgementRecord& record) {
  if (observer_ == nullptr) return;
  MutexLock lock(mu_);
  observer_->Recorded(record);
}

std::vector<DecisionRecord> DecisionLog::Newest(const Filter& filter, size_t limit) const {
  std::vector<DecisionRecord> found;
  MutexLock lock(mu_);
  for (uint64_t id = last_id_; id > 0 && last_id_ - id < ring_.size() && found.size() < limit; --id) {
    const DecisionRecord& record = ring_[(id - 1) % capacity_];
    if (Matches(record, filter)) found.push_back(record);
  }
  return found;
}

}  // namespace sluice::qos
