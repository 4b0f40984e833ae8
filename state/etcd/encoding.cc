#include "state/etcd/encoding.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fmt/format.h"
#include "state/table.h"

namespace sluice::state::etcd {

namespace {

std::string Join(std::string_view prefix, std::string_view key) { return std::string(prefix) + std::string(key); }

void ExpectRevision(etcdserverpb::TxnRequest& txn, std::string key, uint64_t revision) {
  etcdserverpb::RangeRequest& read = *txn.add_failure()->mutable_request_range();
  read.set_key(key);
  read.set_keys_only(true);
  etcdserverpb::Compare& compare = *txn.add_compare();
  compare.set_target(etcdserverpb::Compare::MOD);
  compare.set_result(etcdserverpb::Compare::EQUAL);
  compare.set_key(std::move(key));
  compare.set_mod_revision(static_cast<int64_t>(revision));
}

}  // namespace

std::string RangeEnd(std::string prefix) {
  prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

std::string SessionName(int64_t lease) { return lease == 0 ? "" : fmt::format("{:x}", lease); }

int64_t LeaseOf(std::string_view session) {
  int64_t lease = 0;
  const auto [end, error] = std::from_chars(session.data(), session.data() + session.size(), lease, 16);
  return error == std::errc() && end == session.data() + session.size() ? lease : 0;
}

Entry ToEntry(const mvccpb::KeyValue& kv, std::string_view prefix) {
  return {.key = kv.key().substr(prefix.size()),
          .value = kv.value(),
          .revision = static_cast<uint64_t>(kv.mod_revision()),
          .session = SessionName(kv.lease())};
}

etcdserverpb::TxnRequest EncodeCommit(const std::vector<Change>& changes, const std::optional<Fence>& fence,
                                      std::string_view prefix) {
  etcdserverpb::TxnRequest txn;
  if (fence) ExpectRevision(txn, Join(prefix, fence->key), fence->revision);
  for (const Change& change : changes) {
    ExpectRevision(txn, Join(prefix, change.key), change.expected);
    if (!change.value) {
      txn.add_success()->mutable_request_delete_range()->set_key(Join(prefix, change.key));
      continue;
    }
    etcdserverpb::PutRequest& put = *txn.add_success()->mutable_request_put();
    put.set_key(Join(prefix, change.key));
    put.set_value(*change.value);
    put.set_lease(change.session == nullptr ? 0 : LeaseOf(change.session->name()));
  }
  return txn;
}

absl::Status ConflictOf(const std::vector<Change>& changes, const std::optional<Fence>& fence,
                        const etcdserverpb::TxnResponse& response) {
  const size_t fences = fence ? 1 : 0;
  if (static_cast<size_t>(response.responses_size()) != changes.size() + fences) {
    return absl::UnavailableError(
        fmt::format("etcd answered {} of {} reads", response.responses_size(), changes.size() + fences));
  }
  const auto current = [&](size_t i) {
    const auto& kvs = response.responses(static_cast<int>(i)).response_range().kvs();
    return kvs.empty() ? 0 : static_cast<uint64_t>(kvs[0].mod_revision());
  };
  if (fence && current(0) != fence->revision) return FenceConflict(*fence, current(0));
  for (size_t i = 0; i < changes.size(); ++i) {
    const uint64_t found = current(i + fences);
    if (found != changes[i].expected) return ChangeConflict(changes[i].key, changes[i].expected, found);
  }
  return absl::UnavailableError("etcd refused a commit although every key has the expected revision");
}

Changes Mirror::Reset(Listing listing) {
  Changes changes{.revision = listing.revision, .put = {}, .deleted = {}};
  std::map<std::string, Entry> now;
  for (Entry& entry : listing.entries) {
    const auto old = entries_.find(entry.key);
    if (old == entries_.end() || old->second != entry) changes.put.push_back(entry);
    std::string key = entry.key;
    now.emplace(std::move(key), std::move(entry));
  }
  for (const auto& [key, entry] : entries_) {
    if (!now.contains(key)) changes.deleted.push_back(key);
  }
  entries_ = std::move(now);
  revision_ = listing.revision;
  return changes;
}

Changes Mirror::Apply(const std::vector<mvccpb::Event>& events, std::string_view prefix) {
  std::map<std::string, bool> touched;  // and whether it was told before
  const uint64_t told = revision_;
  for (const mvccpb::Event& event : events) {
    const auto revision = static_cast<uint64_t>(event.kv().mod_revision());
    if (revision <= told) continue;
    revision_ = std::max(revision_, revision);
    Entry entry = ToEntry(event.kv(), prefix);
    touched.emplace(entry.key, entries_.contains(entry.key));
    if (event.type() == mvccpb::Event::DELETE) {
      entries_.erase(entry.key);
    } else {
      std::string key = entry.key;
      entries_.insert_or_assign(std::move(key), std::move(entry));
    }
  }
  Changes changes{.revision = revision_, .put = {}, .deleted = {}};
  for (const auto& [key, told_before] : touched) {
    const auto now = entries_.find(key);
    if (now != entries_.end()) {
      changes.put.push_back(now->second);
    } else if (told_before) {  // else it came and went within these events
      changes.deleted.push_back(key);
    }
  }
  return changes;
}

Duration Backoff(int failures, double random) {
  const double full = std::min(0.1 * std::exp2(std::clamp(failures - 1, 0, 62)), 5.0);
  return FromMillis(full * 1000 * (1 - random / 2));
}

}  // namespace sluice::state::etcd
