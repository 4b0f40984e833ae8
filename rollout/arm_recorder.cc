#include "rollout/arm_recorder.h"

#include <algorithm>
#include <utility>

namespace sluice::rollout {
namespace {

size_t StratumOf(int prompt_tokens) {
  const auto at = std::lower_bound(kStrataTokens.begin(), kStrataTokens.end(), prompt_tokens);
  return static_cast<size_t>(at - kStrataTokens.begin());
}

}  // namespace

void ArmRecorder::Record(const Settled& settled) {
  const auto arm = static_cast<size_t>(settled.arm);
  MutexLock lock(mu_);
  if (settled.arm == Arm::kCanary) {
    row_ = settled.failed ? row_ + 1 : 0;
    tripped_ = tripped_ || (failures_in_a_row_ > 0 && row_ >= failures_in_a_row_);
    if (settled.failed) {
      if (examples_.size() == kMaxExamples) examples_.pop_front();
      examples_.emplace_back(settled.request_id);
    }
  }
  ArmWindow& window = window_.arms[arm];
  ++window.requests;
  if (users_[arm].size() >= kMaxUsers || !users_[arm].insert(settled.user).second) return;
  ++window.events;
  if (known_.size() < kMaxKnown && known_.insert(settled.user).second) ++window.first_users;
  if (settled.failed) {
    ++window.failures;
    return;
  }
  const size_t stratum = StratumOf(settled.prompt_tokens);
  window.ttft_ms[stratum].Add(ToMillis(settled.ttft));
  window.latency_ms[stratum].Add(ToMillis(settled.latency));
}

void ArmRecorder::TripAfter(int failures_in_a_row) {
  MutexLock lock(mu_);
  failures_in_a_row_ = failures_in_a_row;
}

void ArmRecorder::Hold(Arm arm, int64_t bytes) {
  MutexLock lock(mu_);
  held_bytes_[static_cast<size_t>(arm)] += bytes;
}

void ArmRecorder::Crashed(Arm arm, uint64_t requests) {
  MutexLock lock(mu_);
  window_.arms[static_cast<size_t>(arm)].crashes += requests;
}

Window ArmRecorder::Cut() {
  MutexLock lock(mu_);
  Window cut = std::exchange(window_, Window());
  for (size_t arm = 0; arm < kArms; ++arm) {
    cut.arms[arm].memory_bytes = static_cast<double>(std::max<int64_t>(0, held_bytes_[arm]));
    users_[arm].clear();
  }
  return cut;
}

bool ArmRecorder::tripped() const {
  MutexLock lock(mu_);
  return tripped_;
}

std::vector<std::string> ArmRecorder::examples() const {
  MutexLock lock(mu_);
  return {examples_.begin(), examples_.end()};
}

void ArmRecorder::Reset() {
  MutexLock lock(mu_);
  window_ = {};
  for (auto& users : users_) users.clear();
  known_.clear();
  row_ = 0;
  tripped_ = false;
  examples_.clear();
}

}  // namespace sluice::rollout
