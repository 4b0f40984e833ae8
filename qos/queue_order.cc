#include "qos/queue_order.h"

#include <algorithm>
#include <tuple>

namespace sluice::qos {
namespace {

constexpr double kShortestRetryMs = 100, kLongestRetryMs = 30000;

// Smaller is served sooner.
std::tuple<QosClass, uint64_t> Rank(QosClass c, const QueueEnd& end, MonoTime now, Duration starvation_after) {
  return {EffectiveClass(c, now - end.since, starvation_after), end.ticket};
}

}  // namespace

QosClass EffectiveClass(QosClass c, Duration waited, Duration starvation_after) {
  if (starvation_after <= Duration::zero()) return c;
  const int64_t promotions = std::max<int64_t>(0, waited / starvation_after);
  return static_cast<QosClass>(std::max<int64_t>(0, static_cast<int64_t>(c) - promotions));
}

std::optional<QosClass> NextClass(const QueueEnds& oldest, MonoTime now, Duration starvation_after) {
  std::optional<QosClass> best;
  for (int i = 0; i < kQosClassCount; ++i) {
    if (!oldest[i]) continue;
    const QosClass c = static_cast<QosClass>(i);
    if (!best || Rank(c, *oldest[i], now, starvation_after) <
                     Rank(*best, *oldest[static_cast<size_t>(*best)], now, starvation_after)) {
      best = c;
    }
  }
  return best;
}

std::optional<QosClass> VictimClass(const QueueEnds& newest, QosClass newcomer, MonoTime now,
                                    Duration starvation_after) {
  std::optional<QosClass> worst;
  for (int i = 0; i < kQosClassCount; ++i) {
    if (!newest[i]) continue;
    const QosClass c = static_cast<QosClass>(i);
    if (EffectiveClass(c, now - newest[i]->since, starvation_after) <= newcomer) continue;
    if (!worst || Rank(c, *newest[i], now, starvation_after) >
                      Rank(*worst, *newest[static_cast<size_t>(*worst)], now, starvation_after)) {
      worst = c;
    }
  }
  return worst;
}

Duration EstimateRetryAfter(Duration hold, int queued, int limit) {
  return FromMillis(std::clamp(ToMillis(hold) * (queued + 1) / limit, kShortestRetryMs, kLongestRetryMs));
}

}  // namespace sluice::qos
