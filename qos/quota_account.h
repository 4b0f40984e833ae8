// What one tenant has used of one model (or of all together): leaky buckets of requests and tokens, and open requests.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/reason.h"
#include "qos/quota_limits.h"

namespace sluice::qos {

enum class QuotaKind { kRequests, kPromptTokens, kOutputTokens };
inline constexpr int kQuotaKindCount = 3;
using QuotaAmounts = std::array<double, kQuotaKindCount>;  // by kind

// How much a full bucket holds and how fast it fills. Capacity zero: unlimited.
struct QuotaBucket {
  double capacity = 0, per_second = 0;
};
using QuotaBuckets = std::array<QuotaBucket, kQuotaKindCount>;
QuotaBuckets BucketsOf(const QuotaLimits& limits);

// `used` after `passed` of refilling. Negative `passed` counts as zero.
QuotaAmounts Refilled(QuotaAmounts used, const QuotaBuckets& buckets, Duration passed);

// Why a request cannot be let in now.
struct QuotaLack {
  Reason reason = Reason::kQuotaRequests;
  std::string_view limit;  // "requests_per_second"; lives for ever
  double asked = 0, left = 0, allowed = 0;
  std::optional<Duration> retry_after;  // nullopt: a full bucket holds less than what is asked
};

// Thread-safety: thread-compatible (Quotas locks). Reads no clock. `now` never goes back.
//
// What is open was charged in full when it was opened and refills from then on. When less was used, the difference is
// given back, but never what has refilled meanwhile: at most the least that was used at any moment since (so a request
// that reserves much and uses nothing changes nothing for the others: reflected at full, as if it had not been).
class QuotaAccount {
 public:
  // One open request. Lives until Close; not moved meanwhile.
  struct Share {
    QuotaAmounts charged{}, least{};
    Share* older = nullptr;
    Share* newer = nullptr;
  };

  QuotaAccount(std::string model, const QuotaLimits& limits, MonoTime now);
  QuotaAccount(const QuotaAccount&) = delete;  // shares are linked
  QuotaAccount& operator=(const QuotaAccount&) = delete;

  // What was used stays used.
  void SetLimits(const QuotaLimits& limits, MonoTime now);

  // Adds what `amounts` lacks; adds nothing: Open keeps every limit. Asking for nothing needs one unit all the same, so
  // that nothing passes an empty bucket.
  void Check(const QuotaAmounts& amounts, MonoTime now, std::vector<QuotaLack>& lacks);
  void Open(Share& share, const QuotaAmounts& amounts, MonoTime now);
  // More used than charged is a debt that has to refill first.
  void Close(Share& share, const QuotaAmounts& used, MonoTime now);

  // Replicas: what changed here since it was last told, and what all have used together (`used` holds `told`).
  const QuotaAmounts& untold() const { return untold_; }
  void Rebase(const QuotaAmounts& used, const QuotaAmounts& told, MonoTime now);

  const std::string& model() const { return model_; }
  const QuotaBuckets& buckets() const { return buckets_; }
  const QuotaAmounts& used() const { return used_; }  // when it was last asked for

 private:
  void Refill(MonoTime now);
  void NoteLeast();
  static void Forget(const Share& share, size_t kind, double amount);

  const std::string model_;
  QuotaLimits limits_;
  QuotaBuckets buckets_;
  MonoTime at_;  // of used_
  QuotaAmounts used_{}, untold_{};
  int open_ = 0;
  Share* newest_ = nullptr;  // invariant: from it by `older`, `least` of each kind does not rise
};

}  // namespace sluice::qos
