#include "services/rollout_arms.h"

namespace sluice::services {
namespace {

using rollout::Arm;

constexpr size_t kTtft = 1;  // of kRolloutFlags
static_assert(kRolloutFlags[kTtft] == flags::kTtftPipeline);

}  // namespace

RolloutArms::Part RolloutArms::Begin(const flags::RequestDecisions& decisions, int64_t bytes) {
  const std::array<const flags::Decision*, kRolloutFlags.size()> all = {&decisions.phase5, &decisions.ttft_pipeline,
                                                                        &decisions.qos_policy};
  Part part{.bytes = bytes, .begun = true};
  for (size_t flag = 0; flag < all.size(); ++flag) {
    const flags::Decision& decision = *all[flag];
    const bool sorted = decision.layer == flags::Layer::kRolloutStage &&
                        (decision.reason == flags::Reason::kSplit || decision.reason == flags::Reason::kStatic);
    if (!sorted || !watched_[flag].load(std::memory_order_relaxed)) continue;
    const Arm arm = decision.in ? Arm::kCanary : Arm::kBaseline;
    part.arm[flag] = static_cast<int8_t>(arm);
    recorders_[flag].Hold(arm, bytes);
    if (journal_ != nullptr && part.slot < 0) part.slot = journal_->Begin(arm);
  }
  return part;
}

void RolloutArms::Leak(const Part& part, int64_t bytes) {
  for (size_t flag = 0; flag < part.arm.size(); ++flag) {
    if (part.arm[flag] >= 0) recorders_[flag].Hold(static_cast<Arm>(part.arm[flag]), bytes);
  }
}

void RolloutArms::Finish(Part& part, const End& end) {
  if (!part.begun) return;
  part.begun = false;
  if (part.slot >= 0) journal_->End(part.slot);
  for (size_t flag = 0; flag < part.arm.size(); ++flag) {
    if (part.arm[flag] < 0) continue;
    const auto arm = static_cast<Arm>(part.arm[flag]);
    recorders_[flag].Hold(arm, -part.bytes);
    const bool forced = flag == kTtft && end.ttft_was_forced_off && arm == Arm::kCanary;
    if (end.fate == Fate::kNotCounted && !forced) continue;
    recorders_[flag].Record({.arm = arm,
                             .failed = forced || end.fate == Fate::kFailed,
                             .user = end.user,
                             .prompt_tokens = end.prompt_tokens,
                             .ttft = end.ttft,
                             .latency = end.latency,
                             .request_id = end.request_id});
  }
}

}  // namespace sluice::services
