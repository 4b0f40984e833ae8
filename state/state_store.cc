#include "state/state_store.h"

namespace sluice::state {

absl::StatusOr<uint64_t> StateStore::Put(std::string_view key, std::string_view value, uint64_t expected,
                                         const PutOptions& options) {
  return Commit(
      {Change{.key = std::string(key), .value = std::string(value), .expected = expected, .session = options.session}},
      options.fence);
}

absl::StatusOr<uint64_t> StateStore::Delete(std::string_view key, uint64_t expected,
                                            const std::optional<Fence>& fence) {
  return Commit({Change{.key = std::string(key), .value = std::nullopt, .expected = expected}}, fence);
}

}  // namespace sluice::state
