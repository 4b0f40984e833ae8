#include "qos/policy_objective.h"

#include <algorithm>

namespace sluice::qos {
namespace {

constexpr double kPercent = 100;

double MillisOrNone(const std::optional<Duration>& duration) { return duration ? ToMillis(*duration) : -1; }

double SampleOf(Signal signal, const OutcomeNumbers& numbers) {
  switch (signal) {
    case Signal::kTtft:
      return numbers.ttft_ms;
    case Signal::kTpot:
      return numbers.tpot_ms;
    case Signal::kLatency:
      return numbers.latency_ms;
    default:
      return numbers.queue_wait_ms;
  }
}

double LevelOf(Signal signal, const SystemState& state) {
  switch (signal) {
    case Signal::kRunning:
      return state.running;
    case Signal::kQueued:
      return state.queued;
    case Signal::kKvUsage:
      return state.kv_usage * kPercent;
    case Signal::kMemory:
      return state.memory * kPercent;
    default:
      return state.cpu * kPercent;
  }
}

}  // namespace

OutcomeNumbers NumbersOf(const RequestOutcome& outcome) {
  return {.ttft_ms = MillisOrNone(outcome.ttft),
          .tpot_ms = MillisOrNone(outcome.tpot),
          .latency_ms = MillisOrNone(outcome.latency),
          .queue_wait_ms = MillisOrNone(outcome.queue_wait),
          .output_tokens = std::max(0, outcome.output_tokens),
          .counts = outcome.counts,
          .failed = outcome.failed};
}

void AddTo(const Objective& objective, const OutcomeNumbers& numbers, Tally* slice) {
  if (objective.signal == Signal::kTokenRate) slice->sum += numbers.output_tokens;
  if (!numbers.counts) return;
  switch (KindOf(objective.signal)) {
    case SignalKind::kSample: {
      const double value = SampleOf(objective.signal, numbers);
      if (value < 0) return;
      slice->values.Add(value);
      break;
    }
    case SignalKind::kRate:
      if (objective.signal == Signal::kErrorRate) slice->sum += numbers.failed ? 1 : 0;
      if (objective.signal == Signal::kRequestRate) slice->sum += numbers.failed ? 0 : 1;
      break;
    case SignalKind::kLevel:
      return;
  }
  ++slice->samples;
}

ObjectiveReading ReadObjective(const Objective& objective, const ObjectiveWindow& window, const SystemState& state,
                               MonoTime now) {
  if (KindOf(objective.signal) == SignalKind::kLevel) {
    const double level = LevelOf(objective.signal, state);
    return level >= 0 ? ObjectiveReading{level, 1} : ObjectiveReading{};
  }
  const Tally total = window.Total(now);
  ObjectiveReading reading{.samples = total.samples};
  if (total.samples < objective.min_samples) return reading;
  if (KindOf(objective.signal) == SignalKind::kSample) {
    reading.value = total.values.Quantile(objective.quantile);
  } else if (objective.signal == Signal::kErrorRate) {
    reading.value = kPercent * total.sum / static_cast<double>(total.samples);
  } else if (const Duration covered = window.Covered(now); covered >= objective.window / 2) {
    reading.value = total.sum / ToSeconds(covered);
  }
  return reading;
}

Verdict JudgeObjective(const Objective& objective, const ObjectiveReading& reading, double recovery_margin,
                       bool someone_waits) {
  if (!reading.value) return Verdict::kUnknown;
  const double value = *reading.value, threshold = objective.threshold;
  if (objective.at_least) {
    if (value < threshold) return someone_waits ? Verdict::kViolated : Verdict::kUnknown;
    return value >= threshold * (1 + recovery_margin) ? Verdict::kRecovered : Verdict::kHeld;
  }
  if (value > threshold) return Verdict::kViolated;
  return value <= threshold * (1 - recovery_margin) ? Verdict::kRecovered : Verdict::kHeld;
}

Verdict Together(const std::vector<Verdict>& verdicts) {
  for (const Verdict verdict : {Verdict::kViolated, Verdict::kUnknown, Verdict::kHeld}) {
    if (std::find(verdicts.begin(), verdicts.end(), verdict) != verdicts.end()) return verdict;
  }
  return Verdict::kRecovered;
}

}  // namespace sluice::qos
