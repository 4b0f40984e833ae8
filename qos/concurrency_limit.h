// How many requests may run at once? Raised while the engine keeps up, lowered when work queues inside it.
// Source: Netflix concurrency-limits, Gradient2Limit (anchors/qos_reliability.md §2.3), fed with queue wait and time
// per token, never with whole-call time, which mostly says how long the answer was.
#pragma once

#include "base/clock.h"

namespace sluice::qos {

struct ConcurrencyLimitOptions {
  bool enabled = true;
  int initial = 20;
  int floor = 4;           // never below
  int ceiling = 100;       // never above: admission.max_concurrent
  int probe = 4;           // what is added while there is no sign of congestion; apart from the floor
  double tolerance = 1.5;  // short-term time per token may exceed the long-term one by this factor
  double smoothing = 0.2;  // weight of a new limit
  int long_window = 600;   // samples of the long-term average
  Duration queue_wait_target =
      std::chrono::milliseconds(20);  // mean wait inside the engine beyond it: congestion (DAGOR)
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
  explicit ConcurrencyLimit(const ConcurrencyLimitOptions& options);
  // Returns the new limit.
  int Update(const CongestionSample& sample);
  int limit() const;

 private:
  ConcurrencyLimitOptions options_;
  double limit_;
  double long_time_ = 0;  // ms per token, exponentially averaged
};

}  // namespace sluice::qos
