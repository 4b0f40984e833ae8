#include "qos/policy_scope.h"

#include "base/strings.h"

namespace sluice::qos {

void ScopeIndex::Names::Add(const std::vector<const Scope*>& scopes, absl::flat_hash_set<std::string> Scope::*names) {
  for (size_t i = 0; i < scopes.size(); ++i) {
    if (scopes[i] == nullptr) continue;
    if ((scopes[i]->*names).empty()) unnamed.Set(i);
    for (const std::string& name : scopes[i]->*names) listed[name].Set(i);
  }
  for (auto& [name, mask] : listed) unnamed.ForEach([&mask = mask](size_t i) { mask.Set(i); });
}

const PolicyMask& ScopeIndex::Names::Find(std::string_view name) const {
  if (listed.empty()) return unnamed;
  const auto found = listed.find(ToAbsl(name));
  return found == listed.end() ? unnamed : found->second;
}

ScopeIndex::ScopeIndex(const std::vector<const Scope*>& scopes) {
  tenants_.Add(scopes, &Scope::tenants);
  models_.Add(scopes, &Scope::models);
  for (size_t i = 0; i < scopes.size(); ++i) {
    for (int c = 0; c < kQosClassCount; ++c) {
      const uint8_t classes = scopes[i] == nullptr ? 0 : scopes[i]->classes;
      if (scopes[i] != nullptr && (classes == 0 || (classes >> c & 1) != 0)) classes_[static_cast<size_t>(c)].Set(i);
    }
  }
}

PolicyMask ScopeIndex::Match(std::string_view tenant, std::string_view model, QosClass qos_class) const {
  PolicyMask mask = classes_[static_cast<size_t>(qos_class)];
  mask &= tenants_.Find(tenant);
  mask &= models_.Find(model);
  return mask;
}

}  // namespace sluice::qos
