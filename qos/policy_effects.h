// What the standing actions of all policies mean for one request: a pure look-up in an immutable snapshot.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "qos/policy.h"
#include "qos/policy_engine.h"
#include "qos/policy_scope.h"

namespace sluice::qos {

// The policies that stand on a step with a standing action for requests, and what they do there.
// Immutable. Thread-safety: thread-safe.
class ActingPolicies {
 public:
  // `steps`: one for each policy of the set.
  ActingPolicies(std::shared_ptr<const PolicySet> set, const std::vector<int>& steps);

  // Without `snapshot`, which the caller sets when `Any` of it says so. Allocates nothing. Several policies act at
  // once: the smallest max_tokens holds; of pipelines and upstreams that of the highest priority; who sheds first is
  // named.
  PolicyEffects Decide(const Request& request) const;
  static bool Any(const PolicyEffects& effects);

  const ClassCaps& class_caps() const { return class_caps_; }

 private:
  struct Entry {
    std::string_view id;  // lives as long as set_
    uint64_t hash = 0;
    uint32_t threshold = 0;  // PolicyThreshold; 0 in dry_run
    uint8_t shed = 0;        // classes
    int max_tokens = 0;      // 0: no limit
    std::string_view pipeline, upstream;
  };
  static Entry EntryOf(const Policy& policy, int step);
  static void Apply(const Entry& entry, const Request& request, const PolicyEffects::Actions& enforced,
                    PolicyEffects::Actions* out);

  const std::shared_ptr<const PolicySet> set_;
  std::vector<Entry> entries_;  // by falling priority
  ScopeIndex scopes_;           // of entries_
  ClassCaps class_caps_;
};

}  // namespace sluice::qos
