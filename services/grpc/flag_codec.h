// Messages of FlagService ↔ the gate's types.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "flags/flag_changes.h"
#include "flags/flag_sources.h"
#include "sluice/v1/flags.pb.h"

namespace sluice::services {

// A context as a caller described it. Keeps what its views point to; neither copied nor moved.
class DescribedContext final : public flags::HeaderSource {
 public:
  // `message` outlives this.
  DescribedContext(const v1::FlagContext& message, WallTime now);
  DescribedContext(const DescribedContext&) = delete;
  DescribedContext& operator=(const DescribedContext&) = delete;

  const flags::EvaluationContext& context() const { return context_; }
  std::string_view Header(std::string_view name) const override;

 private:
  const v1::FlagContext& message_;
  flags::EvaluationContext context_;
};

// INVALID_ARGUMENT naming each field that is too long, not UTF-8, or of too many.
absl::Status CheckEvaluation(const std::string& flag, const v1::FlagContext& context);

// INVALID_ARGUMENT: percentage outside 0 to 100 or finer than 0.01, no reason or a too long one.
absl::StatusOr<flags::FlagValues> DecodeSet(const v1::SetFlagRequest& message, const std::string& who);
absl::Status CheckReason(const std::string& reason);

void EncodeDecision(const flags::Decision& decision, v1::EvaluateFlagResponse& response);
void EncodeExplanation(const flags::Explanation& explanation, v1::ExplainFlagResponse& response);
void EncodeFlagList(const flags::FlagSet& set, const std::vector<std::string>& stale, v1::ListFlagsResponse& response);
void EncodeChanges(const std::vector<flags::FlagChange>& changes,
                   google::protobuf::RepeatedPtrField<v1::FlagChange>& out);

}  // namespace sluice::services
