#include "qos/retry_budget.h"

#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::qos {

RetryBudget::Counts& RetryBudget::Counts::operator+=(const Counts& o) {
  calls += o.calls;
  retries += o.retries;
  return *this;
}

RetryBudget::Counts& RetryBudget::Counts::operator-=(const Counts& o) {
  calls -= o.calls;
  retries -= o.retries;
  return *this;
}

RetryBudget::RetryBudget(const RetryBudgetOptions& options, const Clock& clock, Family<Counter>& retries)
    : options_(options),
      clock_(clock),
      admitted_(retries.With({"admitted"})),
      refused_(retries.With({std::string(ReasonWord(Reason::kRetryBudget))})),
      window_(CountRing<Counts>::Unit::kSeconds, options.window_seconds) {
  SLUICE_CHECK(options.window_seconds >= 1, "the window of a retry budget is at least one second");
}

absl::Status RetryBudget::Admit(int previous_attempts) {
  const bool retry = previous_attempts > 0;
  Counts after;
  double allowed = 0;
  {
    MutexLock lock(mu_);
    const MonoTime now = clock_.Now();
    window_.Advance(now);
    after = window_.total();
    after += {.calls = 1, .retries = retry ? 1 : 0};
    allowed = std::max(options_.budget_ratio * static_cast<double>(after.calls),
                       static_cast<double>(options_.min_retries_per_second) * options_.window_seconds);
    if (!retry || !options_.enabled || static_cast<double>(after.retries) <= allowed) {
      window_.Add({.calls = 1, .retries = retry ? 1 : 0}, now);
      if (retry) admitted_.Add();
      return absl::OkStatus();
    }
  }
  refused_.Add();
  return MakeError(Reason::kRetryBudget,
                   fmt::format("{} of the last {} calls were retries, and at most {:.0f} may be: do not retry",
                               after.retries - 1, after.calls - 1, allowed));
}

}  // namespace sluice::qos
