// By which attribute of a request are its flags decided? (`flags.targeting_key`)
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "services/request.h"

namespace sluice::services {

// Thread-safety: immutable.
class TargetingKeyOrder {
 public:
  TargetingKeyOrder() : TargetingKeyOrder({"user", "conversation", "request_id"}) {}
  // As config::FlagOptions::targeting_key, checked there.
  explicit TargetingKeyOrder(const std::vector<std::string>& names);

  // The first attribute that the request has; empty: none, so that no percentage lets it in. Points into `request`.
  std::string_view Of(const InferenceRequest& request) const;

 private:
  struct Attribute {
    std::string InferenceRequest::*field = nullptr;  // null: the header
    std::string header;
  };
  std::vector<Attribute> order_;
};

}  // namespace sluice::services
