// The content of a store that lives in one place: entries, revision, and the rules of compare-and-set.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "state/state_store.h"

namespace sluice::state {

inline constexpr size_t kMaxKeys = 10'000;
inline constexpr size_t kMaxTotalBytes = size_t{64} << 20;  // keys and values

// A value: copying it copies no values of entries. Thread-safety: that of a value.
class Table {
 public:
  using Entries = std::map<std::string, std::shared_ptr<const Entry>, std::less<>>;

  uint64_t revision() const { return revision_; }
  const Entries& entries() const { return entries_; }

  absl::StatusOr<Entry> Get(std::string_view key) const;
  Listing List(std::string_view prefix) const;
  // As StateStore's, which sees to it that the sessions live; on an error nothing changed.
  absl::StatusOr<uint64_t> Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence);

  // The sessions that entries belong to.
  std::set<std::string> Sessions() const;
  // Deletes the entries of a session. False: there are none, nothing changed.
  bool DropSession(std::string_view session);

  // As text: a line with format and checksum, a line with the revision, then per entry a line ("key revision size",
  // and the session if there is one) and its bytes.
  std::string Encode() const;
  // DATA_LOSS: not what Encode made. The message goes on after a file's name ("is damaged: ...").
  static absl::StatusOr<Table> Decode(std::string_view text);
  static constexpr size_t kHeaderBytes = 80;  // texts that begin with the same so many bytes are the same

 private:
  uint64_t RevisionOf(std::string_view key) const;
  absl::Status CheckRoom(const std::vector<Change>& changes) const;
  size_t Bytes() const;

  uint64_t revision_ = 0;
  Entries entries_;
};

// What Commit demands of its arguments alone. INVALID_ARGUMENT.
absl::Status CheckChanges(const std::vector<Change>& changes, const std::optional<Fence>& fence);

// ABORTED with the metadata of Commit.
absl::Status ChangeConflict(std::string_view key, uint64_t expected, uint64_t current);
absl::Status FenceConflict(const Fence& fence, uint64_t current);

// From `before` (null: nothing) to `after`, of the keys that begin with `prefix`.
Changes Difference(const Table* before, const Table& after, std::string_view prefix);

}  // namespace sluice::state
