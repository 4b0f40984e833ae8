#include "engine/scheduler/step_cost.h"

#include <algorithm>

namespace sluice::engine {
namespace {

constexpr double kForgetting = 0.985;     // about the last 70 steps count
constexpr double kContextScale = 1000.0;  // keeps the features of similar size
constexpr double kMaxInverse = 1e4;       // stops the matrix from winding up while steps all look alike
constexpr double kMinMsPerToken = 1e-5;

}  // namespace

StepCost::StepCost() : weight_{1.0, 0.5, 1.0, 0.1}, inverse_{} {
  for (int i = 0; i < kTerms; ++i) inverse_[i][i] = 100.0;
}

StepCost::Vector StepCost::Features(const StepShape& s) {
  return {1.0, static_cast<double>(s.decode_rows), static_cast<double>(s.prefill_tokens), s.context / kContextScale};
}

double StepCost::PredictMs(const Vector& x) const {
  double ms = 0;
  for (int i = 0; i < kTerms; ++i) ms += std::max(weight_[i], 0.0) * x[i];
  return ms;
}

void StepCost::Observe(const StepShape& shape, Duration elapsed) {
  const Vector x = Features(shape);
  double ms = ToMillis(elapsed);
  if (observations_ > 20) ms = std::min(ms, 8 * PredictMs(x) + 1);
  ++observations_;

  Vector px{};
  double denominator = kForgetting;
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) px[i] += inverse_[i][j] * x[j];
    denominator += x[i] * px[i];
  }
  double predicted = 0;
  for (int i = 0; i < kTerms; ++i) predicted += weight_[i] * x[i];
  for (int i = 0; i < kTerms; ++i) weight_[i] += px[i] / denominator * (ms - predicted);
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) {
      inverse_[i][j] = (inverse_[i][j] - px[i] * px[j] / denominator) / kForgetting;
    }
    inverse_[i][i] = std::min(inverse_[i][i], kMaxInverse);
  }
}

Duration StepCost::Predict(const StepShape& shape) const { return FromMillis(PredictMs(Features(shape))); }

int StepCost::PrefillTokensWithin(Duration budget, const StepShape& decode, int position) const {
  const double left_ms = ToMillis(budget) - PredictMs(Features(decode));
  if (left_ms <= 0) return 0;
  const double per_token = std::max(weight_[2], 0.0) + std::max(weight_[3], 0.0) * position / kContextScale;
  return static_cast<int>(std::min(left_ms / std::max(per_token, kMinMsPerToken), 1e6));
}

}  // namespace sluice::engine
