#include "qos/quota_account.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sluice::qos {
namespace {

struct KindInfo {
  Reason reason;
  std::string_view limit;
};
constexpr std::array<KindInfo, kQuotaKindCount> kKinds = {
    KindInfo{Reason::kQuotaRequests, "requests_per_second"},
    KindInfo{Reason::kQuotaPromptTokens, "prompt_tokens_per_minute"},
    KindInfo{Reason::kQuotaOutputTokens, "output_tokens_per_minute"}};

constexpr double kRounding = 1e-6;                               // units that sums of doubles may be off
constexpr Duration kConcurrencyRetry = std::chrono::seconds(1);  // nobody knows when a stream ends
constexpr double kLongestRetrySeconds = 3600;

Duration TimeFor(double amount, double per_second) {
  const double seconds = std::min(amount / per_second, kLongestRetrySeconds);
  // Up to the next millisecond, so that who waits exactly that long is let in.
  return std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(seconds));
}

}  // namespace

QuotaBuckets BucketsOf(const QuotaLimits& limits) {
  QuotaBuckets buckets;
  if (limits.requests_per_second > 0) {
    const double burst = limits.request_burst > 0 ? limits.request_burst : limits.requests_per_second;
    buckets[0] = {std::max(1.0, burst), limits.requests_per_second};
  }
  const auto minute = [](int64_t tokens) {
    const double capacity = static_cast<double>(std::max<int64_t>(0, tokens));
    return QuotaBucket{capacity, capacity / 60};
  };
  buckets[1] = minute(limits.prompt_tokens_per_minute);
  buckets[2] = minute(limits.output_tokens_per_minute);
  return buckets;
}

QuotaAmounts Refilled(QuotaAmounts used, const QuotaBuckets& buckets, Duration passed) {
  const double seconds = std::max(0.0, ToSeconds(passed));
  for (size_t k = 0; k < used.size(); ++k) used[k] = std::max(0.0, used[k] - buckets[k].per_second * seconds);
  return used;
}

QuotaAccount::QuotaAccount(std::string model, const QuotaLimits& limits, MonoTime now)
    : model_(std::move(model)), limits_(limits), buckets_(BucketsOf(limits)), at_(now) {}

void QuotaAccount::SetLimits(const QuotaLimits& limits, MonoTime now) {
  Refill(now);
  limits_ = limits;
  buckets_ = BucketsOf(limits);
  for (size_t k = 0; k < kKinds.size(); ++k) {
    if (buckets_[k].capacity <= 0) used_[k] = untold_[k] = 0;
  }
  NoteLeast();
}

void QuotaAccount::Check(const QuotaAmounts& amounts, MonoTime now, std::vector<QuotaLack>& lacks) {
  Refill(now);
  for (size_t k = 0; k < kKinds.size(); ++k) {
    const double capacity = buckets_[k].capacity;
    const double asked = std::max(1.0, amounts[k]);
    const double missing = used_[k] + asked - capacity;
    if (capacity <= 0 || missing <= kRounding) continue;
    QuotaLack lack{.reason = kKinds[k].reason,
                   .limit = kKinds[k].limit,
                   .asked = amounts[k],
                   .left = std::max(0.0, capacity - used_[k]),
                   .allowed = capacity,
                   .retry_after = std::nullopt};
    if (asked <= capacity) lack.retry_after = TimeFor(missing, buckets_[k].per_second);
    lacks.push_back(lack);
  }
  if (limits_.concurrent_requests > 0 && open_ >= limits_.concurrent_requests) {
    lacks.push_back({.reason = Reason::kQuotaConcurrency,
                     .limit = "concurrent_requests",
                     .asked = 1,
                     .left = 0,
                     .allowed = static_cast<double>(limits_.concurrent_requests),
                     .retry_after = kConcurrencyRetry});
  }
}

void QuotaAccount::Open(Share& share, const QuotaAmounts& amounts, MonoTime now) {
  Refill(now);
  ++open_;
  for (size_t k = 0; k < kKinds.size(); ++k) {
    share.charged[k] = buckets_[k].capacity > 0 ? amounts[k] : 0;
    used_[k] += share.charged[k];
    untold_[k] += share.charged[k];
  }
  share.least = used_;
  share.older = newest_;
  if (newest_ != nullptr) newest_->newer = &share;
  newest_ = &share;
}

void QuotaAccount::Close(Share& share, const QuotaAmounts& used, MonoTime now) {
  Refill(now);
  --open_;
  (share.newer != nullptr ? share.newer->older : newest_) = share.older;
  if (share.older != nullptr) share.older->newer = share.newer;
  for (size_t k = 0; k < kKinds.size(); ++k) {
    if (buckets_[k].capacity <= 0) continue;
    const double more = std::max(used[k] - share.charged[k], -std::max(0.0, share.least[k]));
    used_[k] = std::max(0.0, used_[k] + more);
    untold_[k] += more;
    if (more < 0) Forget(share, k, -more);
  }
  NoteLeast();
}

// As if `share` had never held `amount`: since it was opened, that much less was used at the least. (Where refilling
// had cut its claim, what was used was no more than the claim, so nothing was left for the others.)
void QuotaAccount::Forget(const Share& share, size_t kind, double amount) {
  for (Share* other = share.newer; other != nullptr; other = other->newer) other->least[kind] -= amount;
  const double least = share.least[kind] - amount;
  for (Share* other = share.older; other != nullptr && other->least[kind] > least; other = other->older) {
    other->least[kind] = least;
  }
}

void QuotaAccount::Rebase(const QuotaAmounts& used, const QuotaAmounts& told, MonoTime now) {
  Refill(now);
  for (size_t k = 0; k < kKinds.size(); ++k) {
    if (buckets_[k].capacity <= 0) continue;
    untold_[k] -= told[k];
    used_[k] = std::max(0.0, used[k] + untold_[k]);
  }
  NoteLeast();
}

void QuotaAccount::Refill(MonoTime now) {
  if (now <= at_) return;
  used_ = Refilled(used_, buckets_, now - at_);
  at_ = now;
  NoteLeast();
}

// The newest know the fewest moments, so behind one that knew less all older ones did.
void QuotaAccount::NoteLeast() {
  for (Share* share = newest_; share != nullptr; share = share->older) {
    bool lowered = false;
    for (size_t k = 0; k < kKinds.size(); ++k) {
      lowered |= used_[k] < share->least[k];
      share->least[k] = std::min(share->least[k], used_[k]);
    }
    if (!lowered) return;
  }
}

}  // namespace sluice::qos
