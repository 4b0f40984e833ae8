// How long will a step take? A linear model fitted continuously to the steps that ran, so it follows the machine, the
// model and its noise. Steps without prompts teach what decode rows cost: recursive least squares with exponential
// forgetting (Haykin, Adaptive Filter Theory, ch. 10). What the other steps took beyond that teaches the cost of a
// prompt token. One fit of both would drift: under load every step has prompts, as many as the fit itself allows, and
// then nothing tells one from the other. So the planner must leave out the prompts now and then (kMeasureEvery).
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

  // The last steps had both decode rows and prompts: the next one shall have decode rows only.
  bool WantsDecodeOnly() const { return mixed_in_a_row_ >= kMeasureEvery; }

  int observations() const { return observations_; }

 private:
  static constexpr int kMeasureEvery = 32;
  static constexpr int kTerms = 3;  // 1, decode rows, context
  using Vector = std::array<double, kTerms>;
  static Vector Features(const StepShape& shape);
  double PredictMs(const StepShape& shape) const;
  double DecodeMs(const StepShape& shape) const;  // and of the context of all rows
  void LearnDecode(const Vector& x, double ms);
  void LearnPrefill(const StepShape& shape, double ms);

  Vector weight_;                       // milliseconds per feature
  std::array<Vector, kTerms> inverse_;  // inverse correlation matrix
  double token_ms_ = 1;                 // of a prompt token, its context left out
  int observations_ = 0, prefills_ = 0, mixed_in_a_row_ = 0;
};

}  // namespace sluice::engine
