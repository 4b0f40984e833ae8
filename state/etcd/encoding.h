// What a StateStore's calls are in etcd's words, and back. Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "etcd/mvcc.pb.h"
#include "etcd/rpc.pb.h"
#include "state/state_store.h"

namespace sluice::state::etcd {

// The first key behind all that begin with `prefix`. Requires: not empty, its last byte not 0xff.
std::string RangeEnd(std::string prefix);

// A session's name is its lease's number, as etcdctl shows it. 0: not such a name.
std::string SessionName(int64_t lease);
int64_t LeaseOf(std::string_view session);

// Without the prefix, which the key must have.
Entry ToEntry(const mvccpb::KeyValue& kv, std::string_view prefix);

// A transaction that compares, and then changes or reads what it compared.
etcdserverpb::TxnRequest EncodeCommit(const std::vector<Change>& changes, const std::optional<Fence>& fence,
                                      std::string_view prefix);
// Why it did not succeed: ABORTED as StateStore::Commit.
absl::Status ConflictOf(const std::vector<Change>& changes, const std::optional<Fence>& fence,
                        const etcdserverpb::TxnResponse& response);

// What a watch has told, and what there is to tell.
class Mirror {
 public:
  // From what was told to a listing.
  Changes Reset(Listing listing);
  // From what was told on by these events, whose keys have the prefix. Older ones than what was told are left out.
  Changes Apply(const std::vector<mvccpb::Event>& events, std::string_view prefix);
  uint64_t revision() const { return revision_; }

 private:
  std::map<std::string, Entry> entries_;
  uint64_t revision_ = 0;
};

// Before attempt `failures` + 1: doubles from 100 ms to 5 s, of which a random half is taken off (`random` in [0, 1)),
// so that replicas do not come back all at once.
Duration Backoff(int failures, double random);

}  // namespace sluice::state::etcd
