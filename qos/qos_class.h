// Priority classes, best first. Names as clients send them.
#pragma once

#include <optional>
#include <string_view>

namespace sluice::qos {

// Smaller is more urgent (Triton and vLLM count the same way; other edges are normalized at their door).
enum class QosClass { kSystem = 0, kInteractive = 1, kStandard = 2, kBatch = 3 };
inline constexpr int kQosClassCount = 4;

std::string_view QosClassName(QosClass c);  // "system", "interactive", "standard", "batch"
std::optional<QosClass> ParseQosClass(std::string_view name);

// The less urgent of the two: a tenant's highest class caps what a request asks for.
inline QosClass Clamp(QosClass asked, QosClass highest_allowed) {
  return asked < highest_allowed ? highest_allowed : asked;
}

}  // namespace sluice::qos
