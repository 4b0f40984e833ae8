// How near is the process to a wall? Pressure of memory, CPU and file descriptors, and what to do at which level.
// Source: Envoy's overload manager (anchors/qos_reliability.md §2.1): scaled and threshold triggers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "qos/qos_class.h"

namespace sluice::qos {

enum class Resource { kMemory, kCpu, kFileDescriptors };
inline constexpr int kResourceCount = 3;
std::string_view ResourceName(Resource resource);  // "memory", "cpu", "file_descriptors"

// Shares 0..1 of the limit; negative: not known.
using Pressure = std::array<double, kResourceCount>;

// Between `scaling` and `saturation` the effect grows from 0 to 1; when they are equal, it is whole from there on.
struct Trigger {
  double scaling = 1, saturation = 1;
};
inline constexpr Trigger kNever{.scaling = 2, .saturation = 2};  // pressure ends at 1

// One trigger a resource, in the order of Resource. The defaults shed long before the limit, batch first; only memory
// and file descriptors, which end a process, refuse everybody: at 98 % (Envoy's stop_accepting_requests).
struct OverloadOptions {
  using Triggers = std::array<Trigger, kResourceCount>;
  Triggers shed_batch = {{{0.85, 0.95}, {0.80, 0.95}, {0.80, 0.90}}};
  Triggers shed_standard = {{{0.92, 0.97}, {0.90, 0.98}, {0.90, 0.95}}};
  Triggers shrink_caches = {{{0.90, 0.95}, kNever, kNever}};
  Triggers refuse_all = {{{0.98, 0.98}, kNever, {0.98, 0.98}}};
};
// INVALID_ARGUMENT naming the trigger: 0 < scaling <= saturation must hold.
absl::Status CheckOverload(const OverloadOptions& options);

struct OverloadState {
  double shed_batch = 0, shed_standard = 0;  // share of these classes to refuse, 0..1
  double shrink_caches = 0;                  // how much to give back, 0..1
  double refuse_all = 0;                     // share of everything but system to refuse
  Resource cause = Resource::kMemory;        // the resource behind the gravest effect

  bool operator==(const OverloadState&) const = default;
};

// Pure. A resource that is not known has no effect.
OverloadState JudgeOverload(const OverloadOptions& options, const Pressure& pressure);

// Share of the requests of a class to refuse, 0..1; 0 for system. Pure.
double ShedShare(const OverloadState& state, QosClass c);

}  // namespace sluice::qos
