// One request as the QoS engine sees it: free of any wire format, model or flag.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "qos/qos_class.h"

namespace sluice::qos {

// The views are valid for the call that gets it; who keeps a request copies what it needs.
struct Request {
  std::string_view request_id, tenant, model;
  // StableHash (policy_bucket.h) of the targeting key: buckets a policy's enforced percentage. 0: there is no key.
  uint64_t key_hash = 0;
  QosClass qos_class = QosClass::kStandard;  // already clamped to the tenant's highest
  int prompt_tokens = 0, max_tokens = 0;     // max_tokens: of the answer
  int cached_prompt_tokens = 0;              // of the prompt, computed already; 0: not known
  size_t prompt_bytes = 0;
  MonoTime arrival{};                          // deadlines count from here; unset: from the call
  MonoTime deadline = kInfiniteFuture;         // of the whole answer
  int previous_attempts = 0;                   // a retry says how often it was tried before
  bool default_deadline = false;               // it is the server's default, not one that the client chose
  Duration ttft_objective = Duration::zero();  // the client wants its first token within this; zero: says nothing
};

}  // namespace sluice::qos
