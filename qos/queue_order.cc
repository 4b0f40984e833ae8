#include "qos/queue_order.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace sluice::qos {
namespace {

constexpr int kLargestSize = 40;  // beyond any count of tokens
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

uint8_t SizeOf(QueueOrder order, double work) {
  if (order == QueueOrder::kFcfs || work < 1) return 0;
  return static_cast<uint8_t>(std::min(std::ilogb(work), kLargestSize));
}

bool GoesBefore(Duration waited, uint8_t size, Duration other_waited, uint8_t other_size) {
  const double ratio = std::ldexp(static_cast<double>(waited.count()), -2 * size);
  const double other_ratio = std::ldexp(static_cast<double>(other_waited.count()), -2 * other_size);
  return ratio != other_ratio ? ratio > other_ratio : size < other_size;
}

std::optional<Next> NextInLine(const QueueEnds& heads, const QueueEnds& oldest, MonoTime now,
                               Duration starvation_after) {
  using Ranked = std::tuple<std::tuple<QosClass, uint64_t>, QosClass>;
  std::optional<Ranked> best;
  const auto consider = [&](QosClass c, const QueueEnd& end) {
    const Ranked ranked{Rank(c, end, now, starvation_after), c};
    if (!best || ranked < *best) best = ranked;
  };
  QosClass best_class = QosClass::kBatch;  // of those that wait
  for (int i = kQosClassCount - 1; i >= 0; --i) {
    if (!heads[i]) continue;
    consider(static_cast<QosClass>(i), *heads[i]);
    best_class = static_cast<QosClass>(i);
  }
  if (!best) return std::nullopt;
  const QosClass served = std::get<QosClass>(*best);
  for (int i = 0; i < kQosClassCount; ++i) {
    if (oldest[i] && static_cast<QosClass>(i) != served) consider(static_cast<QosClass>(i), *oldest[i]);
  }
  const QosClass c = std::get<QosClass>(*best);
  return Next{.qos_class = c, .ticket = std::get<uint64_t>(std::get<0>(*best)), .promoted = c > best_class};
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
