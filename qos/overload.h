// How near is the process to a wall? Pressure of memory, CPU and file descriptors, and what to do at which level.
// Source: Envoy's overload manager (anchors/qos_reliability.md §2.1): scaled and threshold triggers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sluice::qos {

enum class Resource { kMemory, kCpu, kFileDescriptors };
inline constexpr int kResourceCount = 3;
std::string_view ResourceName(Resource resource);  // "memory", "cpu", "file_descriptors"

// Shares 0..1 of the limit; negative: not known.
using Pressure = std::array<double, kResourceCount>;

// Between `scaling` and `saturation` the effect grows from 0 to 1.
struct Trigger {
  double scaling = 1, saturation = 1;
};

struct OverloadOptions {
  std::array<Trigger, kResourceCount> shed_batch, shed_standard, shrink_caches, refuse_all;
};

struct OverloadState {
  double shed_batch = 0, shed_standard = 0;  // share of these classes to refuse, 0..1
  double shrink_caches = 0;                  // how much to give back, 0..1
  double refuse_all = 0;                     // share of everything but system to refuse
  Resource cause = Resource::kMemory;        // the resource behind the strongest effect

  bool operator==(const OverloadState&) const = default;
};

// Pure.
OverloadState JudgeOverload(const OverloadOptions& options, const Pressure& pressure);

}  // namespace sluice::qos
