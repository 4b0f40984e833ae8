#include "rollout/rollout_spec.h"

#include <algorithm>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace sluice::rollout {
namespace {

constexpr uint32_t kMaxHoldback = 500;

std::string Percent(uint32_t bps) { return fmt::format("{:g} %", bps / 100.0); }

}  // namespace

uint32_t RolloutSpec::Share(size_t i) const { return std::min(stages[i].bps, kAllBps - holdback_bps); }

absl::Status CheckSpec(const RolloutSpec& spec) {
  std::vector<std::string> faults;
  if (spec.flag.empty()) faults.emplace_back("flag is missing");
  if (spec.stages.empty()) faults.emplace_back("stages: there is none; allowed are 1 to 20");
  if (spec.stages.size() > kMaxStages) {
    faults.push_back(fmt::format("stages: {} are too many; allowed are 1 to {}", spec.stages.size(), kMaxStages));
  }
  if (spec.holdback_bps > kMaxHoldback) {
    faults.push_back(fmt::format("holdback: {} is too much; allowed are 0 to 5 %", Percent(spec.holdback_bps)));
  }
  for (size_t i = 0; i < spec.stages.size(); ++i) {
    const uint32_t bps = spec.stages[i].bps;
    if (bps == 0 || bps > kAllBps) {
      faults.push_back(fmt::format("stages[{}]: {} is not more than 0 and at most 100 %", i, Percent(bps)));
    } else if (i > 0 && bps <= spec.stages[i - 1].bps) {
      faults.push_back(fmt::format("stages[{}]: {} does not rise above the {} before it", i, Percent(bps),
                                   Percent(spec.stages[i - 1].bps)));
    } else if (i > 0 && spec.Share(i) <= spec.Share(i - 1)) {
      faults.push_back(fmt::format("stages[{}]: with a holdback of {} it serves no more than the {} before it", i,
                                   Percent(spec.holdback_bps), Percent(spec.stages[i - 1].bps)));
    }
  }
  if (faults.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("rollout of '{}': {}", spec.flag, fmt::join(faults, "; ")));
}

}  // namespace sluice::rollout
