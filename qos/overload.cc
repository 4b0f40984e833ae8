#include "qos/overload.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "fmt/format.h"

namespace sluice::qos {
namespace {

// Envoy's scaled trigger: (pressure - scaling) / (saturation - scaling), within 0..1.
double Effect(const Trigger& trigger, double pressure) {
  if (pressure >= trigger.saturation) return 1;
  if (pressure <= trigger.scaling) return 0;  // also when it is not known
  return (pressure - trigger.scaling) / (trigger.saturation - trigger.scaling);
}

// The strongest effect of any resource, and which one it is.
double Strongest(const OverloadOptions::Triggers& triggers, const Pressure& pressure, Resource* cause) {
  double strongest = 0;
  for (size_t i = 0; i < triggers.size(); ++i) {
    const double effect = Effect(triggers[i], pressure[i]);
    if (effect <= strongest) continue;
    strongest = effect;
    *cause = static_cast<Resource>(i);
  }
  return strongest;
}

}  // namespace

std::string_view ResourceName(Resource resource) {
  switch (resource) {
    case Resource::kMemory:
      return "memory";
    case Resource::kCpu:
      return "cpu";
    case Resource::kFileDescriptors:
      return "file_descriptors";
  }
  SLUICE_CHECK(false, "a Resource outside its enum");
}

absl::Status CheckOverload(const OverloadOptions& options) {
  const struct {
    std::string_view name;
    const OverloadOptions::Triggers& triggers;
  } effects[] = {{"shed_batch", options.shed_batch},
                 {"shed_standard", options.shed_standard},
                 {"shrink_caches", options.shrink_caches},
                 {"refuse_all", options.refuse_all}};
  for (const auto& [name, triggers] : effects) {
    for (size_t i = 0; i < triggers.size(); ++i) {
      const Trigger& t = triggers[i];
      if (t.scaling > 0 && t.scaling <= t.saturation) continue;
      return absl::InvalidArgumentError(fmt::format("{}.{}: from {} to {}; allowed: above 0, and rising",
                                                    ResourceName(static_cast<Resource>(i)), name, t.scaling,
                                                    t.saturation));
    }
  }
  return absl::OkStatus();
}

OverloadState JudgeOverload(const OverloadOptions& options, const Pressure& pressure) {
  OverloadState state;
  // From the mildest to the gravest: the last one that has an effect names the cause.
  state.shrink_caches = Strongest(options.shrink_caches, pressure, &state.cause);
  state.shed_batch = Strongest(options.shed_batch, pressure, &state.cause);
  state.shed_standard = Strongest(options.shed_standard, pressure, &state.cause);
  state.refuse_all = Strongest(options.refuse_all, pressure, &state.cause);
  return state;
}

double ShedShare(const OverloadState& state, QosClass c) {
  switch (c) {
    case QosClass::kSystem:
      return 0;
    case QosClass::kInteractive:
      return state.refuse_all;
    case QosClass::kStandard:
      return std::max(state.shed_standard, state.refuse_all);
    case QosClass::kBatch:
      return std::max({state.shed_batch, state.shed_standard, state.refuse_all});
  }
  SLUICE_CHECK(false, "a QosClass outside its enum");
}

}  // namespace sluice::qos
