// How long will a step take? A linear model fitted continuously to the steps that ran: recursive least squares with
// exponential forgetting (Haykin, Adaptive Filter Theory, ch. 10), so it follows the machine, the model and its noise.
#pragma once

#include <array>

#include "base/clock.h"

namespace sluice::engine {

// What a step consists of.
struct StepShape {
  int decode_rows = 0;     // sequences bringing one row
  int prefill_tokens = 0;  // rows of sequences still computing their prompt
  double context = 0;      // sum over rows of their position: attention work
};

// Thread-safety: thread-compatible (a value).
class StepCost {
 public:
  StepCost();

  // The step took `elapsed`. Outliers beyond 8 × the prediction count as 8 ×, so that one descheduling does not
  // teach the model nonsense.
  void Observe(const StepShape& shape, Duration elapsed);

  Duration Predict(const StepShape& shape) const;

  // Prefill tokens at `position` that fit into `budget` beside `decode` rows; 0 when none do.
  int PrefillTokensWithin(Duration budget, const StepShape& decode, int position) const;

  int observations() const { return observations_; }

 private:
  static constexpr int kTerms = 4;  // 1, decode rows, prefill tokens, context
  using Vector = std::array<double, kTerms>;
  static Vector Features(const StepShape& shape);
  double PredictMs(const Vector& x) const;

  Vector weight_;                       // milliseconds per feature
  std::array<Vector, kTerms> inverse_;  // inverse correlation matrix
  int observations_ = 0;
};

}  // namespace sluice::engine
