#include "qos/qos_class.h"

#include <array>

namespace sluice::qos {
namespace {

constexpr std::array<std::string_view, kQosClassCount> kNames = {"system", "interactive", "standard", "batch"};

}  // namespace

std::string_view QosClassName(QosClass c) { return kNames.at(static_cast<size_t>(c)); }

std::optional<QosClass> ParseQosClass(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<QosClass>(i);
  }
  return std::nullopt;
}

}  // namespace sluice::qos
