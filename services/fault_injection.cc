#include "services/fault_injection.h"

#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "fmt/format.h"

namespace sluice::services {

FaultInjection::FaultInjection(const Clock& clock, std::function<double()> random)
    : clock_(clock), random_(std::move(random)), thread_([this] { Run(); }) {}

FaultInjection::~FaultInjection() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.SignalAll();
  thread_.join();
}

void FaultInjection::Set(config::FaultsByPipeline faults) {
  for (const auto& [pipeline, fault] : faults) {
    LogWarning("faults are injected on purpose", {{"pipeline", pipeline},
                                                  {"error_share", fmt::format("{:g}", fault.error_share), true},
                                                  {"crash_share", fmt::format("{:g}", fault.crash_share), true},
                                                  {"delay_ms", fmt::format("{:g}", ToMillis(fault.delay)), true},
                                                  {"leak_bytes", std::to_string(fault.leak_bytes), true}});
  }
  if (faults.empty()) LogInfo("no faults are injected", {});
  MutexLock lock(mu_);
  faults_ = std::move(faults);
}

FaultInjection::Strike FaultInjection::Next(std::string_view pipeline) {
  MutexLock lock(mu_);
  if (faults_.empty()) return {};
  const auto it = faults_.find(std::string(pipeline));
  if (it == faults_.end()) return {};
  const config::Fault& fault = it->second;
  if (fault.crash_share > 0 && random_() < fault.crash_share) std::abort();
  Strike strike{.fail = fault.error_share > 0 && random_() < fault.error_share, .delay = fault.delay};
  if (fault.leak_bytes > 0 && leaked_ + fault.leak_bytes <= kMaxLeak) {
    leak_.emplace_back(static_cast<size_t>(fault.leak_bytes), 'x');
    leaked_ += fault.leak_bytes;
    strike.leaked = fault.leak_bytes;
  }
  return strike;
}

void FaultInjection::After(Duration delay, std::function<void()> next) {
  if (delay > Duration::zero()) {
    MutexLock lock(mu_);
    if (delayed_.size() < kMaxDelayed && !stopping_) {
      delayed_.emplace(SaturatingAdd(clock_.Now(), delay), std::move(next));
      wake_.SignalAll();
      return;
    }
  }
  next();
}

void FaultInjection::Run() {
  MutexLock lock(mu_);
  while (!stopping_ || !delayed_.empty()) {
    if (delayed_.empty()) {
      wake_.Wait(mu_);
      continue;
    }
    const MonoTime due = delayed_.begin()->first, now = clock_.Now();
    if (!stopping_ && now < due) {
      wake_.WaitFor(mu_, due - now);
      continue;
    }
    const std::function<void()> next = std::move(delayed_.begin()->second);
    delayed_.erase(delayed_.begin());
    mu_.Unlock();
    next();
    mu_.Lock();
  }
}

}  // namespace sluice::services
