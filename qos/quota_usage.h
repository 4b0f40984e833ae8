// What tenants have used, as replicas tell each other: a few entries of the state store, each with the accounts of
// some of the tenants, changed by compare-and-set.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "qos/quota_account.h"
#include "state/state_store.h"

namespace sluice::qos {

inline constexpr size_t kQuotaShards = 16;
inline constexpr std::string_view kQuotaPrefix = "qos/quota/";
size_t QuotaShardOf(std::string_view tenant);
std::string QuotaShardKey(size_t shard);

using QuotaAccountName = std::pair<std::string, std::string>;  // tenant, model

struct QuotaUsage {
  QuotaAmounts used{};
  int64_t at_ms = 0;  // Unix; what has refilled since is not taken off

  bool operator==(const QuotaUsage&) const = default;
};
using QuotaUsages = std::map<QuotaAccountName, QuotaUsage>;

// A damaged line is left out.
QuotaUsages ParseQuotaUsage(std::string_view text);
// Leaves out what was not changed for an hour, what is not used at all and, beyond the longest value of a store, the
// rest.
std::string FormatQuotaUsage(const QuotaUsages& usages, int64_t now_ms);

// What one replica adds to an account.
struct QuotaChange {
  QuotaAccountName account;
  QuotaBuckets buckets;
  QuotaAmounts delta{};
};

// Adds `changes` to the shard that holds `entry` (revision 0: there is none yet) and returns its usages then. When
// another replica was first it reads anew, a few times. Blocks on the store. Errors: the store's.
absl::StatusOr<QuotaUsages> ExchangeQuotaUsage(state::StateStore& store, state::Entry entry,
                                               const std::vector<QuotaChange>& changes, int64_t now_ms);

}  // namespace sluice::qos
