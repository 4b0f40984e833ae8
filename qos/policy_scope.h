// Which of many scopes is a request in? One look-up for its tenant and one for its model, however many policies there
// are.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "qos/policy.h"

namespace sluice::qos {

// A set of policies, by index. A value.
class PolicyMask {
 public:
  void Set(size_t index) { words_[index / 64] |= uint64_t{1} << (index % 64); }
  PolicyMask& operator&=(const PolicyMask& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
    return *this;
  }
  bool Any() const { return *this != PolicyMask(); }
  template <typename Use>
  void ForEach(Use&& use) const {  // by rising index
    for (size_t i = 0; i < words_.size(); ++i) {
      for (uint64_t rest = words_[i]; rest != 0; rest &= rest - 1) {
        use(i * 64 + static_cast<size_t>(std::countr_zero(rest)));
      }
    }
  }
  bool operator==(const PolicyMask&) const = default;

 private:
  std::array<uint64_t, PolicySet::kMaxPolicies / 64> words_{};
};

// Immutable. Thread-safety: thread-safe. Match allocates nothing. Memory: by the names in the scopes.
class ScopeIndex {
 public:
  // Scope i has index i; null: nobody is in it.
  explicit ScopeIndex(const std::vector<const Scope*>& scopes);
  PolicyMask Match(std::string_view tenant, std::string_view model, QosClass qos_class) const;

 private:
  struct Names {
    PolicyMask unnamed;  // scopes that a name which nobody lists is in
    absl::flat_hash_map<std::string, PolicyMask> listed;

    void Add(const std::vector<const Scope*>& scopes, absl::flat_hash_set<std::string> Scope::*names);
    const PolicyMask& Find(std::string_view name) const;
  };
  Names tenants_, models_;
  std::array<PolicyMask, kQosClassCount> classes_;
};

}  // namespace sluice::qos
