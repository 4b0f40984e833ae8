#include "qos/breaker_registry.h"

#include <map>
#include <utility>

#include "base/mutex.h"

namespace sluice::qos {
namespace {

constexpr BreakerState kAllStates[] = {BreakerState::kClosed,   BreakerState::kOpen,       BreakerState::kHalfOpen,
                                       BreakerState::kDisabled, BreakerState::kForcedOpen, BreakerState::kMetricsOnly};
constexpr std::string_view kOther = "other";

using Key = std::pair<std::string, std::string>;  // model, pipeline
using KeyView = std::pair<std::string_view, std::string_view>;

struct KeyLess {
  using is_transparent = void;  // looks up views without making strings
  bool operator()(const KeyView& a, const KeyView& b) const { return a < b; }
};

struct Slot {
  std::unique_ptr<CircuitBreaker> breaker;
  uint64_t counted = 0;  // of not_permitted, in the metric already
};

}  // namespace

struct BreakerRegistry::Impl {
  const BreakerOptions options;
  const Clock& clock;
  const size_t max_breakers;
  Family<Gauge>& states;
  Family<Counter>& not_permitted;
  Mutex mu;  // protects the map; taken before a breaker's own lock
  std::map<Key, Slot, KeyLess> slots ABSL_GUARDED_BY(mu);
};

BreakerRegistry::BreakerRegistry(const BreakerOptions& options, const Clock& clock, MetricsRegistry& metrics,
                                 size_t max_breakers)
    : impl_(new Impl{
          .options = options,
          .clock = clock,
          .max_breakers = max_breakers,
          .states = metrics.AddGauge("sluice_qos_breaker_state", "1 for the current state of the circuit breaker",
                                     {"model", "pipeline", "state"}, (max_breakers + 1) * std::size(kAllStates)),
          .not_permitted =
              metrics.AddCounter("sluice_qos_breaker_not_permitted_total", "Calls that the circuit breaker refused",
                                 {"model", "pipeline"}, max_breakers + 1),
      }) {}

BreakerRegistry::~BreakerRegistry() = default;

CircuitBreaker& BreakerRegistry::Get(std::string_view model, std::string_view pipeline) {
  MutexLock lock(impl_->mu);
  KeyView key(model, pipeline);
  auto it = impl_->slots.find(key);
  if (it == impl_->slots.end() && impl_->slots.size() >= impl_->max_breakers) {
    key = KeyView(kOther, kOther);
    it = impl_->slots.find(key);
  }
  if (it == impl_->slots.end()) {
    it = impl_->slots.try_emplace(Key(key)).first;
    it->second.breaker = std::make_unique<CircuitBreaker>(impl_->options, impl_->clock);
  }
  return *it->second.breaker;
}

std::vector<BreakerRegistry::Entry> BreakerRegistry::List() const {
  MutexLock lock(impl_->mu);
  std::vector<Entry> out;
  out.reserve(impl_->slots.size());
  for (auto& [key, slot] : impl_->slots) {
    const auto& [model, pipeline] = key;
    const CircuitBreaker::Snapshot snapshot = slot.breaker->Take();
    for (const BreakerState state : kAllStates) {
      impl_->states.With({model, pipeline, std::string(BreakerStateName(state))}).Set(state == snapshot.state ? 1 : 0);
    }
    impl_->not_permitted.With({model, pipeline}).Add(snapshot.not_permitted - slot.counted);
    slot.counted = snapshot.not_permitted;
    out.push_back({model, pipeline, snapshot});
  }
  return out;
}

}  // namespace sluice::qos
