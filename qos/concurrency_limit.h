// How many requests may run at once? Raised while the engine keeps up, lowered when work queues inside it.
// Source: Netflix concurrency-limits, Gradient2Limit (anchors/qos_reliability.md §2.3), fed with queue wait and time
// per token, never with whole-call time, which mostly says how long the answer was. Differences, each because the
// original fails a simulation (tests/qos/concurrency_limit_test.cc):
// - the mean wait for the engine is a sign of its own, with a fixed target (DAGOR): it cannot drift;
// - the long-term time learns from calm samples only, and at the floor from all. Gradient2 learns from every sample, so
//   in a lasting overload it takes the slowness for normal and lifts the limit to the ceiling. As Envoy measures its
//   minRTT anew after a while at the minimum, an engine that has become slower for good is found out at the floor;
// - the probe is added only without a sign of congestion, and has nothing to do with the floor (envoy#46532).
#pragma once

#include "base/clock.h"

namespace sluice::qos {

struct ConcurrencyLimitOptions {
  bool enabled = true;  // false: the limit is the ceiling
  int initial = 20;
  int floor = 4;           // never below
  int ceiling = 100;       // never above: admission.max_concurrent
  int probe = 4;           // what is added while there is no sign of congestion, before smoothing
  double tolerance = 1.5;  // short-term time per token may exceed the long-term one by this factor
  double smoothing = 0.2;  // weight of a new limit
  int long_window = 600;   // samples of the long-term average
  Duration queue_wait_target =
      std::chrono::milliseconds(20);  // mean wait inside the engine beyond it: congestion (DAGOR)

  bool operator==(const ConcurrencyLimitOptions&) const = default;
};

// One look at the engine.
struct CongestionSample {
  Duration queue_wait{};      // mean wait inside the engine, of what started since the last look
  Duration time_per_token{};  // mean step time per running stream; zero: nothing ran
  int running = 0;            // permits in use
};

// Thread-safety: thread-compatible (a value with state). Pure: the same samples give the same limits.
class ConcurrencyLimit {
 public:
  // Requires: 1 <= floor <= ceiling, probe and long_window at least 1, tolerance at least 1, smoothing in (0, 1].
  // `initial` is brought between floor and ceiling.
  explicit ConcurrencyLimit(const ConcurrencyLimitOptions& options);
  // Returns the new limit. Falls by at most smoothing / 2, grows by at most smoothing × probe; does not grow while less
  // than half of it is in use. Call it a few times a second: the waits it sees should be shorter than its interval.
  int Update(const CongestionSample& sample);
  int limit() const { return static_cast<int>(limit_); }

 private:
  // Share of the limit that is kept, 0.5..1; 1: no sign of congestion.
  double Gradient(const CongestionSample& sample) const;
  void Learn(Duration time_per_token);

  ConcurrencyLimitOptions options_;
  double limit_;
  double long_time_ = 0;  // ms per token, exponentially averaged; 0: no sample yet
};

}  // namespace sluice::qos
