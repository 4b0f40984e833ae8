#include "engine/scheduler/step_cost.h"

#include <algorithm>

namespace sluice::engine {
namespace {

constexpr double kForgetting = 0.97;      // about the last 30 steps count
constexpr double kContextScale = 1000.0;  // keeps the features of similar size
constexpr double kMaxInverse = 1e4;       // nothing more is forgotten beyond it: steps all look alike
constexpr double kMinMsPerToken = 1e-3;
constexpr double kTokenSmoothing = 0.05;

}  // namespace

StepCost::StepCost() : weight_{1.0, 0.5, 0.1}, inverse_{} {
  for (int i = 0; i < kTerms; ++i) inverse_[i][i] = 100.0;
}

StepCost::Vector StepCost::Features(const StepShape& s) {
  return {1.0, static_cast<double>(s.decode_rows), s.context / kContextScale};
}

double StepCost::DecodeMs(const StepShape& shape) const {
  const Vector x = Features(shape);
  double ms = 0;
  for (int i = 0; i < kTerms; ++i) ms += std::max(weight_[i], 0.0) * x[i];
  return ms;
}

double StepCost::PredictMs(const StepShape& shape) const { return DecodeMs(shape) + token_ms_ * shape.prefill_tokens; }

void StepCost::Observe(const StepShape& shape, Duration elapsed) {
  double ms = ToMillis(elapsed);
  if (observations_ > 20) ms = std::min(ms, 8 * PredictMs(shape) + 1);
  ++observations_;
  mixed_in_a_row_ = shape.decode_rows > 0 && shape.prefill_tokens > 0 ? mixed_in_a_row_ + 1 : 0;
  if (shape.prefill_tokens > 0) {
    LearnPrefill(shape, ms);
  } else {
    LearnDecode(Features(shape), ms);
  }
}

void StepCost::LearnDecode(const Vector& x, double ms) {
  Vector px{};
  double denominator = kForgetting;
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) px[i] += inverse_[i][j] * x[j];
    denominator += x[i] * px[i];
  }
  double predicted = 0, largest = 0;
  for (int i = 0; i < kTerms; ++i) {
    predicted += weight_[i] * x[i];
    largest = std::max(largest, inverse_[i][i]);
  }
  const double forgetting = largest < kMaxInverse ? kForgetting : 1;
  for (int i = 0; i < kTerms; ++i) weight_[i] += px[i] / denominator * (ms - predicted);
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) {
      inverse_[i][j] = (inverse_[i][j] - px[i] * px[j] / denominator) / forgetting;
    }
  }
}

void StepCost::LearnPrefill(const StepShape& shape, double ms) {
  const double now = std::max((ms - DecodeMs(shape)) / shape.prefill_tokens, kMinMsPerToken);
  // The mean of the first ones; later a few tokens teach less than many.
  const double many = std::min(1.0, shape.prefill_tokens / 16.0);
  token_ms_ += std::max(1.0 / ++prefills_, kTokenSmoothing * many) * (now - token_ms_);
}

Duration StepCost::Predict(const StepShape& shape) const { return FromMillis(PredictMs(shape)); }

int StepCost::PrefillTokensWithin(Duration budget, const StepShape& decode, int position) const {
  const double left_ms = ToMillis(budget) - DecodeMs(decode);
  if (left_ms <= 0) return 0;
  const double per_token = token_ms_ + std::max(weight_[2], 0.0) * position / kContextScale;
  return static_cast<int>(std::min(left_ms / std::max(per_token, kMinMsPerToken), 1e6));
}

}  // namespace sluice::engine
