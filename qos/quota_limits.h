// What a tenant may take, as data.
#pragma once

#include <cstdint>
#include <string>

namespace sluice::qos {

// Zero: unlimited.
struct QuotaLimits {
  double requests_per_second = 0;
  double request_burst = 0;     // requests at once above the rate; zero: one second's worth; at least one
  int concurrent_requests = 0;  // of one replica
  int64_t prompt_tokens_per_minute = 0;
  int64_t output_tokens_per_minute = 0;
};

struct QuotaRule {
  std::string tenant = "*";  // "*": every tenant that no rule names, each on its own
  std::string model = "*";   // "*": all models together
  QuotaLimits limits;
};

}  // namespace sluice::qos
