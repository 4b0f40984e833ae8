#include "services/telemetry/flag_evaluation_log.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/strings.h"
#include "flags/flagd/definitions.h"
#include "fmt/format.h"

namespace sluice::services {
namespace {

using flags::Reason;

constexpr size_t kPseudonymDigits = 16;

// OpenTelemetry's word for what is wrong; empty: nothing.
std::string_view ErrorType(Reason reason) {
  switch (reason) {
    case Reason::kUnknownFlag:
      return "flag_not_found";
    case Reason::kTargetingKeyMissing:
      return "targeting_key_missing";
    case Reason::kError:
      return "general";
    default:
      return "";
  }
}

// The flag set that a definition in flagd's format names; empty: none.
std::string SetIdOf(const flags::FlagSet& set, std::string_view key) {
  const flags::Flag* flag = set.Find(key);
  const auto* flagd =
      flag == nullptr ? nullptr : dynamic_cast<const flags::flagd::FlagdTargeting*>(flag->targeting.get());
  if (flagd == nullptr) return "";
  const nlohmann::json metadata = flagd->Metadata();
  const auto id = metadata.find("flagSetId");
  return id != metadata.end() && id->is_string() ? flags::Shown(id->get<std::string>()) : "";
}

std::vector<LogField> Fields(std::string_view request_id, std::string_view targeting_key, const flags::FlagSet& set,
                             const flags::Decision& d) {
  const std::string_view error = ErrorType(d.reason);
  std::vector<LogField> fields = {
      {"request_id", std::string(request_id)},
      {"feature_flag.key", flags::Shown(d.flag)},
      {"feature_flag.provider.name", "sluice"},
      {"feature_flag.result.variant", flags::Shown(d.variant)},
      {"feature_flag.result.reason",
       error.empty() ? absl::AsciiStrToLower(ToAbsl(flags::ReasonName(d.reason))) : "error"},
      {"feature_flag.version", std::to_string(d.epoch)}};
  if (!targeting_key.empty()) {
    fields.push_back({"feature_flag.context.id", Sha256Hex(targeting_key).substr(0, kPseudonymDigits)});
  }
  if (std::string id = SetIdOf(set, d.flag); !id.empty()) fields.push_back({"feature_flag.set.id", std::move(id)});
  if (!error.empty()) fields.push_back({"error.type", std::string(error)});
  if (d.dry_run) fields.push_back({"dry_run", "true", /*raw=*/true});
  return fields;
}

}  // namespace

void FlagEvaluationLog::Decided(std::string_view request_id, std::string_view targeting_key,
                                const flags::RequestDecisions& decisions) {
  if (which_ == config::FlagEvaluations::kOff) return;
  for (const flags::Decision* d : {&decisions.phase5, &decisions.ttft_pipeline, &decisions.qos_policy}) {
    if (which_ == config::FlagEvaluations::kChanges && !IsNews(*d)) continue;
    LogInfo("feature_flag.evaluation", Fields(request_id, targeting_key, *decisions.snapshot, *d));
  }
}

bool FlagEvaluationLog::IsNews(const flags::Decision& decision) {
  MutexLock lock(mu_);
  if (decision.epoch < epoch_) return false;
  if (decision.epoch > epoch_) outcomes_.clear();
  epoch_ = decision.epoch;
  if (outcomes_.size() >= kMostOutcomes) return false;
  return outcomes_
      .insert(fmt::format("{}={};{};{}", decision.flag, decision.variant, flags::ReasonName(decision.reason),
                          decision.dry_run))
      .second;
}

}  // namespace sluice::services
