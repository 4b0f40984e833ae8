#include "services/targeting_key.h"

#include "base/check.h"
#include "config/server_config.h"

namespace sluice::services {

TargetingKeyOrder::TargetingKeyOrder(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (name.starts_with(config::kHeaderKeyPrefix)) {
      order_.push_back({.header = name.substr(config::kHeaderKeyPrefix.size())});
      continue;
    }
    Attribute& attribute = order_.emplace_back();
    if (name == "user") attribute.field = &InferenceRequest::user;
    if (name == "conversation") attribute.field = &InferenceRequest::conversation;
    if (name == "tenant") attribute.field = &InferenceRequest::tenant;
    if (name == "request_id") attribute.field = &InferenceRequest::request_id;
    SLUICE_CHECK(attribute.field != nullptr, "config checked the names of flags.targeting_key");
  }
}

std::string_view TargetingKeyOrder::Of(const InferenceRequest& request) const {
  for (const Attribute& attribute : order_) {
    if (attribute.field != nullptr) {
      if (!(request.*attribute.field).empty()) return request.*attribute.field;
    } else if (const auto it = request.headers.find(attribute.header);
               it != request.headers.end() && !it->second.empty()) {
      return it->second;
    }
  }
  return {};
}

}  // namespace sluice::services
