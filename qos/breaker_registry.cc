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
  const Listener listener;
  Family<Gauge>& states;
  Family<Counter>& not_permitted;
  Family<Gauge>&failure_rate, &slow_call_rate;
  Family<Counter>& transitions;
  Mutex mu;  // protects the map; taken before a breaker's own lock
  std::map<Key, Slot, KeyLess> slots ABSL_GUARDED_BY(mu);
};

BreakerRegistry::BreakerRegistry(const BreakerOptions& options, const Clock& clock, MetricsRegistry& metrics,
                                 size_t max_breakers, Listener listener)
    : impl_(new Impl{
          .options = options,
          .clock = clock,
          .max_breakers = max_breakers,
          .listener = std::move(listener),
          .states = metrics.AddGauge("sluice_qos_breaker_state", "1 for the current state of the circuit breaker",
                                     {"model", "pipeline", "state"}, (max_breakers + 1) * std::size(kAllStates)),
          .not_permitted =
              metrics.AddCounter("sluice_qos_breaker_not_permitted_total", "Calls that the circuit breaker refused",
                                 {"model", "pipeline"}, max_breakers + 1),
          .failure_rate =
              metrics.AddGauge("sluice_qos_breaker_failure_rate", "Share of failed calls; -1: too few calls",
                               {"model", "pipeline"}, max_breakers + 1),
          .slow_call_rate =
              metrics.AddGauge("sluice_qos_breaker_slow_call_rate", "Share of slow calls; -1: too few calls",
                               {"model", "pipeline"}, max_breakers + 1),
          .transitions = metrics.AddCounter("sluice_qos_breaker_transitions_total", "Changes of state",
                                            {"model", "pipeline", "to", "cause"}, 1000),
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
    it->second.breaker = std::make_unique<CircuitBreaker>(
        impl_->options, impl_->clock, [impl = impl_.get(), names = it->first](const Transition& transition) {
          const auto& [of_model, of_pipeline] = names;
          impl->transitions
              .With({of_model, of_pipeline, std::string(BreakerStateName(transition.to)),
                     std::string(TransitionCauseName(transition.cause))})
              .Add();
          if (impl->listener) impl->listener(of_model, of_pipeline, transition);
        });
  }
  return *it->second.breaker;
}

std::vector<CircuitBreaker*> BreakerRegistry::Matching(std::string_view model, std::string_view pipeline) const {
  MutexLock lock(impl_->mu);
  std::vector<CircuitBreaker*> out;
  for (const auto& [key, slot] : impl_->slots) {
    const bool matches = (model.empty() || key.first == model) && (pipeline.empty() || key.second == pipeline);
    if (matches) out.push_back(slot.breaker.get());
  }
  return out;
}

// Breakers are called without the lock of the registry: their listener may call it.
void BreakerRegistry::Tick() {
  for (CircuitBreaker* breaker : Matching("", "")) breaker->Tick();
}

int BreakerRegistry::Force(std::string_view model, std::string_view pipeline, BreakerState state,
                           const CircuitBreaker::Force& force) {
  const std::vector<CircuitBreaker*> breakers = Matching(model, pipeline);
  for (CircuitBreaker* breaker : breakers) breaker->ForceState(state, force);
  return static_cast<int>(breakers.size());
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
    impl_->failure_rate.With({model, pipeline}).Set(snapshot.failure_rate);
    impl_->slow_call_rate.With({model, pipeline}).Set(snapshot.slow_call_rate);
    impl_->not_permitted.With({model, pipeline}).Add(snapshot.not_permitted - slot.counted);
    slot.counted = snapshot.not_permitted;
    out.push_back({model, pipeline, snapshot});
  }
  return out;
}

}  // namespace sluice::qos
