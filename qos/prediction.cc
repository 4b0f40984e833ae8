#include "qos/prediction.h"

#include <algorithm>

namespace sluice::qos {
namespace {

constexpr double kMillisPerSecond = 1000;
constexpr double kOutputTokenWork = 8;                   // prompt tokens, while the engine has not measured its rates
constexpr double kLongestMs = 1000.0 * 3600 * 24 * 365;  // keeps sums of durations far from overflow

Duration Seconds(double seconds) { return FromMillis(std::min(seconds * kMillisPerSecond, kLongestMs)); }

bool Measured(const EngineLoad& load) {
  return load.prefill_tokens_per_second > 0 && load.decode_tokens_per_second > 0;
}

}  // namespace

std::optional<Prediction> Predict(const EngineLoad& load, int uncached_prompt_tokens, int output_tokens,
                                  const Ahead& ahead) {
  if (!Measured(load)) return std::nullopt;
  const int for_permit = ahead.requests + 1 - ahead.free_permits;
  const int for_slot = load.slots > 0 ? load.running + load.waiting + ahead.requests + 1 - load.slots : 0;
  const int places = std::max({for_permit, for_slot, 0});
  if (places > 0 && ahead.completions_per_second <= 0) return std::nullopt;
  const double place_wait = places > 0 ? places / ahead.completions_per_second : 0;
  const double prefill_ahead =
      static_cast<double>(load.uncomputed_prompt_tokens + ahead.prompt_tokens) / load.prefill_tokens_per_second;
  const double ttft =
      std::max(place_wait, prefill_ahead) + std::max(uncached_prompt_tokens, 0) / load.prefill_tokens_per_second;
  const double pace = std::max(load.running, 1) / load.decode_tokens_per_second;
  return Prediction{.ttft = Seconds(ttft), .finish = Seconds(ttft + std::max(output_tokens - 1, 0) * pace)};
}

void TtftCorrection::Learn(Duration predicted, Duration real) {
  constexpr double kKept = 0.98;
  if (predicted <= Duration::zero() || real <= Duration::zero()) return;
  predicted_ms_ = kKept * predicted_ms_ + ToMillis(predicted);
  real_ms_ = kKept * real_ms_ + ToMillis(real);
}

double TtftCorrection::factor() const { return std::clamp(real_ms_ / predicted_ms_, 0.5, 4.0); }

std::optional<Late> Judge(const Request& request, const Prediction& prediction, MonoTime now, double tolerance) {
  const auto late = [&](Duration predicted, MonoTime by, double times) {
    return by != kInfiniteFuture && ToMillis(predicted) > times * ToMillis(by - now);
  };
  if (request.ttft_objective > Duration::zero()) {
    const MonoTime arrival = request.arrival == MonoTime{} ? now : request.arrival;
    const MonoTime by = SaturatingAdd(arrival, request.ttft_objective);
    if (late(prediction.ttft, by, 1)) return Late{Reason::kTtftUnreachable, prediction.ttft, by - now};
  }
  const Duration needed = request.default_deadline ? prediction.ttft : prediction.finish;
  if (!late(needed, request.deadline, tolerance)) return std::nullopt;
  return Late{Reason::kDeadlineUnreachable, needed, request.deadline - now};
}

double WorkOf(const EngineLoad* load, int uncached_prompt_tokens, int output_tokens) {
  const double weight = load != nullptr && Measured(*load)
                            ? load->prefill_tokens_per_second / load->decode_tokens_per_second
                            : kOutputTokenWork;
  return std::max(uncached_prompt_tokens, 0) + weight * std::max(output_tokens, 0);
}

}  // namespace sluice::qos
