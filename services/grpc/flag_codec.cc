#include "services/grpc/flag_codec.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "nlohmann/json.hpp"

namespace sluice::services {
namespace {

constexpr size_t kMaxIdBytes = 256;
constexpr size_t kMaxReasonBytes = 512;
constexpr int kMaxHeaders = 64;
constexpr double kStepsPerPercent = 100;

void CheckText(std::string_view field, const std::string& text, std::vector<FieldViolation>* violations) {
  if (text.size() > kMaxIdBytes || !IsValidUtf8(text)) {
    violations->push_back(
        {std::string(field), fmt::format("got {} bytes; allowed up to {}, UTF-8", text.size(), kMaxIdBytes)});
  }
}

double Percent(flags::RolloutBps bps) { return static_cast<double>(bps) / kStepsPerPercent; }

}  // namespace

DescribedContext::DescribedContext(const v1::FlagContext& message, WallTime now)
    : message_(message),
      context_{.targeting_key = message.targeting_key(),
               .tenant = message.tenant(),
               .user = message.user(),
               .model = message.model(),
               .qos_class = message.priority_class(),
               .headers = this,
               .now = now} {}

std::string_view DescribedContext::Header(std::string_view name) const {
  const auto it = message_.headers().find(std::string(name));
  return it == message_.headers().end() ? std::string_view() : it->second;
}

absl::Status CheckEvaluation(const std::string& flag, const v1::FlagContext& context) {
  std::vector<FieldViolation> violations;
  if (flag.empty()) violations.push_back({"flag", "is empty; allowed: the name of a flag"});
  CheckText("flag", flag, &violations);
  CheckText("context.targeting_key", context.targeting_key(), &violations);
  CheckText("context.tenant", context.tenant(), &violations);
  CheckText("context.user", context.user(), &violations);
  CheckText("context.model", context.model(), &violations);
  CheckText("context.priority_class", context.priority_class(), &violations);
  if (context.headers_size() > kMaxHeaders) {
    violations.push_back(
        {"context.headers", fmt::format("got {}; allowed up to {}", context.headers_size(), kMaxHeaders)});
  }
  for (const auto& [name, value] : context.headers()) {
    CheckText("context.headers", name, &violations);
    CheckText("context.headers", value, &violations);
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(std::move(violations));
}

absl::Status CheckReason(const std::string& reason) {
  if (!reason.empty() && reason.size() <= kMaxReasonBytes && IsValidUtf8(reason)) return absl::OkStatus();
  return InvalidFields({{"reason", fmt::format("got {} bytes; allowed 1 to {}, UTF-8: say why, it is kept in the log",
                                               reason.size(), kMaxReasonBytes)}});
}

absl::StatusOr<flags::FlagValues> DecodeSet(const v1::SetFlagRequest& message, const std::string& who) {
  SLUICE_RETURN_IF_ERROR(CheckEvaluation(message.flag(), {}));
  SLUICE_RETURN_IF_ERROR(CheckReason(message.reason()));
  flags::FlagValues values;
  if (message.has_enabled()) {
    values.enabled = message.enabled();
    values.enabled_by = who;
  }
  if (message.has_rollout_percentage()) {
    const double steps = message.rollout_percentage() * kStepsPerPercent;
    const bool fits = steps >= 0 && steps <= flags::kBuckets && std::abs(steps - std::round(steps)) < 1e-6;
    if (!fits) {
      return InvalidFields({{"rollout_percentage",
                             fmt::format("got {}; allowed 0 to 100 in steps of 0.01", message.rollout_percentage())}});
    }
    values.rollout_bps = static_cast<flags::RolloutBps>(std::lround(steps));
    values.rollout_by = who;
  }
  return values;
}

void EncodeDecision(const flags::Decision& decision, v1::EvaluateFlagResponse& response) {
  response.set_in(decision.in);
  response.set_dry_run(decision.dry_run);
  response.set_variant(std::string(decision.variant));
  if (decision.variant_value != nullptr) response.set_value_json(decision.variant_value->value->dump());
  response.set_reason(std::string(flags::ReasonName(decision.reason)));
  response.set_layer(std::string(flags::LayerName(decision.layer)));
  response.set_bucket(decision.bucket);
  response.set_threshold(decision.threshold);
  response.set_epoch(decision.epoch);
}

void EncodeExplanation(const flags::Explanation& explanation, v1::ExplainFlagResponse& response) {
  EncodeDecision(explanation.decision, *response.mutable_decision());
  response.set_flag(explanation.flag);
  response.set_text(explanation.Text());
  if (explanation.split.has_value()) {
    response.set_salt(explanation.split->salt);
    response.set_hash_version(explanation.split->hash_version);
    response.set_hash(explanation.split->hash);
  }
  for (const flags::RuleTrace& rule : explanation.rules) {
    v1::RuleOutcome& outcome = *response.add_rules();
    outcome.set_name(rule.name);
    outcome.set_matched(rule.matched);
    outcome.set_why(rule.why);
  }
  for (const flags::InertValue& inert : explanation.inert) response.add_inert(flags::Describe(inert));
  for (const std::string& layer : explanation.stale) response.add_stale(layer);
  for (const flags::Explanation& parent : explanation.parents) EncodeExplanation(parent, *response.add_parents());
}

void EncodeFlagList(const flags::FlagSet& set, const std::vector<std::string>& stale, v1::ListFlagsResponse& response) {
  const flags::FlagSet::EffectiveState state = set.Describe();
  response.set_epoch(set.epoch());
  response.set_kill_switch(set.spec().kill_switch);
  response.set_rollback_to_baseline(set.spec().rollback_to_baseline);
  for (const flags::Flag& flag : set.flags()) {
    v1::FlagInfo& info = *response.add_flags();
    info.set_key(flag.key);
    info.set_enabled(flag.enabled);
    info.set_rollout_percentage(Percent(flag.rollout_bps));
    info.set_effective_percentage(100 * set.EffectiveShare(flag.key));
    info.set_enabled_layer(std::string(flags::LayerName(flag.layer)));
    info.set_rollout_layer(std::string(flags::LayerName(flag.rollout_layer)));
    info.set_definition_layer(std::string(flags::LayerName(flag.definition_layer)));
    info.set_parent(flag.parent);
    info.set_dry_run(flag.dry_run);
    for (const flags::Variant& variant : flag.variants) info.add_variants(variant.name);
    info.set_rules(static_cast<int>(flag.rules.size()));
    for (const std::string& line : state.lines) {
      if (line.starts_with(flag.key + ": ")) info.set_effective(line);
    }
  }
  for (const std::string& warning : state.warnings) response.add_warnings(warning);
  for (const std::string& layer : stale) response.add_stale(layer);
}

void EncodeChanges(const std::vector<flags::FlagChange>& changes,
                   google::protobuf::RepeatedPtrField<v1::FlagChange>& out) {
  for (const flags::FlagChange& change : changes) {
    v1::FlagChange& message = *out.Add();
    message.set_flag(change.flag);
    message.set_field(change.field);
    message.set_before(change.before);
    message.set_after(change.after);
    message.set_layer(std::string(flags::LayerName(change.layer)));
  }
}

}  // namespace sluice::services
