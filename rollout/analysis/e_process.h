// Tests that may be looked at after every window for ever: e-processes. Under the hypothesis an e-process is a
// nonnegative supermartingale that starts at 1, so the chance that it ever reaches 1 / alpha is at most alpha (Ville
// 1939; Howard, Ramdas, McAuliffe, Sekhon: Time-uniform, nonparametric, nonasymptotic confidence sequences, 2021).
#pragma once

#include <cstdint>
#include <vector>

namespace sluice::rollout {

// Counts of two arms that ran at the same time. Which of the two an event falls on does not depend on how many there
// are: given an event, it is the canary's with probability r n1 / (r n1 + n0), r the ratio of the rates. So a base rate
// that is unknown, or drifts, cancels.
//   E = sum over j of 1/J × product over windows of (t(r_j) / t(r_0))^x1 × ((1 - t(r_j)) / (1 - t(r_0)))^x0
// is an e-process for every ratio at most r_0 when each r_j > r_0, and for every ratio at least r_0 when each r_j < r_0
// (monotone likelihood ratio). Source: Lindon, Malek: Anytime-valid inference for multinomial count data, NeurIPS 2022,
// conditioned on the totals of a window; events are taken to be rare (frequent ones make it conservative).
// A value.
class RatioTest {
 public:
  // `null_ratio` > 0; `alternatives`: all above it, or all below.
  RatioTest(double null_ratio, std::vector<double> alternatives);

  // n: exposures, x: events among them. Does nothing when an arm had no exposure.
  void Add(uint64_t canary_n, uint64_t canary_x, uint64_t baseline_n, uint64_t baseline_x);
  double LogE() const;

  const std::vector<double>& state() const { return log_; }
  // False, and unchanged: not that of a test with as many alternatives.
  bool Restore(const std::vector<double>& state);

 private:
  double null_ratio_;
  std::vector<double> alternatives_;
  std::vector<double> log_;
};

// Events of a rate that is compared with a fixed one: for every rate at most p_0 when each p_j > p_0, and at least p_0
// when each p_j < p_0. A value.
class RateTest {
 public:
  RateTest(double null_rate, std::vector<double> alternatives);

  void Add(uint64_t n, uint64_t x);  // x at most n
  double LogE() const;
  const std::vector<double>& state() const { return log_; }
  bool Restore(const std::vector<double>& state);

 private:
  double null_rate_;
  std::vector<double> alternatives_;
  std::vector<double> log_;
};

// The ratio of two rates over windows whose shares and base rates differ: Mantel and Haenszel 1959, its interval by
// Greenland and Robins 1985. A value.
class PooledRatio {
 public:
  void Add(uint64_t canary_n, uint64_t canary_x, uint64_t baseline_n, uint64_t baseline_x);
  struct Estimate {
    double ratio = 0, low = 0, high = 0;  // 95 %; infinite where the baseline had no event
    bool known = false;
  };
  Estimate Get() const;

  std::vector<double> state() const { return {r_, s_, p_}; }
  bool Restore(const std::vector<double>& state);

 private:
  double r_ = 0, s_ = 0, p_ = 0;
};

}  // namespace sluice::rollout
