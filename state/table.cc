#include "state/table.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "base/digest.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::state {
namespace {

constexpr std::string_view kFormat = "sluice-state 1 ";  // then the SHA-256 of everything after this line

absl::Status CheckKey(std::string_view key) {
  const auto plain = [](char c) { return c > ' ' && c < '\x7f'; };
  if (!key.empty() && key.size() <= kMaxKeyBytes && std::all_of(key.begin(), key.end(), plain)) return {};
  return absl::InvalidArgumentError(
      fmt::format("a key of the state store has 1 to {} printable ASCII characters without space; got {} bytes",
                  kMaxKeyBytes, key.size()));
}

auto Range(const Table::Entries& entries, std::string_view prefix) {
  auto begin = entries.lower_bound(prefix), end = begin;
  while (end != entries.end() && end->first.starts_with(prefix)) ++end;
  return std::pair(begin, end);
}

// Takes the parts of an encoded table from the front; after a part that is not there, it stays failed.
class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  std::string_view Until(char end) {
    const size_t at = rest_.find(end);
    if (at == std::string_view::npos) return Fail();
    const std::string_view word = rest_.substr(0, at);
    rest_.remove_prefix(at + 1);
    return word;
  }
  uint64_t NumberUntil(char end) { return Number(Until(end)); }
  uint64_t Number(std::string_view word) {
    uint64_t number = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || stop != word.data() + word.size()) Fail();
    return number;
  }
  std::string_view Bytes(size_t size) {
    if (size > rest_.size()) return Fail();
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }
  bool ok() const { return ok_; }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view Fail() {
    ok_ = false;
    rest_ = {};
    return {};
  }
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace

absl::StatusOr<Entry> Table::Get(std::string_view key) const {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return absl::NotFoundError(fmt::format("no key '{}' in the state store", key));
  return *found->second;
}

Listing Table::List(std::string_view prefix) const {
  return {.revision = revision_, .entries = Difference(nullptr, *this, prefix).put};
}

absl::Status CheckChanges(const std::vector<Change>& changes, const std::optional<Fence>& fence) {
  if (changes.empty() || changes.size() > kMaxChanges) {
    return absl::InvalidArgumentError(fmt::format("a commit has 1 to {} changes; got {}", kMaxChanges, changes.size()));
  }
  if (fence) SLUICE_RETURN_IF_ERROR(CheckKey(fence->key));
  std::set<std::string_view> keys;
  size_t bytes = 0;
  for (const Change& change : changes) {
    SLUICE_RETURN_IF_ERROR(CheckKey(change.key));
    if (!keys.insert(change.key).second) {
      return absl::InvalidArgumentError(fmt::format("two changes of '{}' in one commit", change.key));
    }
    if (!change.value && change.expected == 0) {
      return absl::InvalidArgumentError(
          fmt::format("only a key that exists can be deleted: expected of '{}' is 0", change.key));
    }
    bytes += change.value ? change.value->size() : 0;
  }
  if (bytes <= kMaxValueBytes) return {};
  return absl::InvalidArgumentError(fmt::format("the value of '{}' has {} bytes, with those of its commit; allowed {}",
                                                changes.front().key, bytes, kMaxValueBytes));
}

absl::Status ChangeConflict(std::string_view key, uint64_t expected, uint64_t current) {
  return MakeError(Reason::kRevisionConflict,
                   fmt::format("'{}' is at revision {}, expected {} (0: no such key)", key, current, expected),
                   {.metadata = {{"key", std::string(key)}, {"current_revision", std::to_string(current)}}});
}

absl::Status FenceConflict(const Fence& fence, uint64_t current) {
  return MakeError(Reason::kRevisionConflict,
                   fmt::format("the fence '{}' is at revision {}, expected {} (0: no such key): nothing was changed",
                               fence.key, current, fence.revision),
                   {.metadata = {{"fence_key", fence.key}, {"current_revision", std::to_string(current)}}});
}

uint64_t Table::RevisionOf(std::string_view key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? 0 : found->second->revision;
}

absl::Status Table::CheckRoom(const std::vector<Change>& changes) const {
  size_t bytes = Bytes(), keys = entries_.size();
  for (const Change& change : changes) {
    if (const auto old = entries_.find(change.key); old != entries_.end()) {
      bytes -= change.key.size() + old->second->value.size();
      --keys;
    }
    if (!change.value) continue;
    bytes += change.key.size() + change.value->size();
    ++keys;
  }
  const std::string& first = changes.front().key;
  if (bytes > kMaxTotalBytes) {
    return absl::ResourceExhaustedError(
        fmt::format("the state store is full: {} bytes with '{}'; allowed {}", bytes, first, kMaxTotalBytes));
  }
  if (keys <= kMaxKeys || keys <= entries_.size()) return {};
  return absl::ResourceExhaustedError(fmt::format("the state store is full: {} keys are allowed", kMaxKeys));
}

absl::StatusOr<uint64_t> Table::Commit(const std::vector<Change>& changes, const std::optional<Fence>& fence) {
  SLUICE_RETURN_IF_ERROR(CheckChanges(changes, fence));
  if (fence && RevisionOf(fence->key) != fence->revision) return FenceConflict(*fence, RevisionOf(fence->key));
  for (const Change& change : changes) {
    if (const uint64_t current = RevisionOf(change.key); current != change.expected) {
      return ChangeConflict(change.key, change.expected, current);
    }
  }
  SLUICE_RETURN_IF_ERROR(CheckRoom(changes));
  ++revision_;
  for (const Change& change : changes) {
    if (!change.value) {
      entries_.erase(change.key);
      continue;
    }
    entries_[change.key] = std::make_shared<const Entry>(
        Entry{.key = change.key,
              .value = *change.value,
              .revision = revision_,
              .session = std::string(change.session == nullptr ? "" : change.session->name())});
  }
  return revision_;
}

std::set<std::string> Table::Sessions() const {
  std::set<std::string> sessions;
  for (const auto& [key, entry] : entries_) {
    if (!entry->session.empty()) sessions.insert(entry->session);
  }
  return sessions;
}

bool Table::DropSession(std::string_view session) {
  if (std::erase_if(entries_, [&](const auto& item) { return item.second->session == session; }) == 0) return false;
  ++revision_;
  return true;
}

size_t Table::Bytes() const {
  size_t bytes = 0;
  for (const auto& [key, entry] : entries_) bytes += key.size() + entry->value.size();
  return bytes;
}

std::string Table::Encode() const {
  std::string body = fmt::format("revision {} entries {}\n", revision_, entries_.size());
  body.reserve(body.size() + Bytes() + entries_.size() * 48);
  for (const auto& [key, entry] : entries_) {
    body += fmt::format("{} {} {}{}{}\n", key, entry->revision, entry->value.size(), entry->session.empty() ? "" : " ",
                        entry->session);
    body += entry->value;
    body += '\n';
  }
  return fmt::format("{}{}\n{}", kFormat, Sha256Hex(body), body);
}

absl::StatusOr<Table> Table::Decode(std::string_view text) {
  if (!text.starts_with(kFormat)) {
    const std::string_view found = text.substr(0, std::min(text.find('\n'), kFormat.size()));
    return absl::DataLossError(
        fmt::format("does not begin with '{}' but with '{}': it is damaged, not a state file, or "
                    "of another version of Sluice",
                    kFormat, found));
  }
  const std::string_view digest_line = text.substr(kFormat.size(), kHeaderBytes - kFormat.size());
  text.remove_prefix(std::min(text.size(), kHeaderBytes));
  if (digest_line != Sha256Hex(text) + '\n') {
    return absl::DataLossError("is damaged: its checksum does not match its content");
  }
  Parser parser(text);
  Table table;
  parser.Until(' ');
  table.revision_ = parser.NumberUntil(' ');
  parser.Until(' ');
  const uint64_t count = parser.NumberUntil('\n');
  for (uint64_t i = 0; i < count && parser.ok(); ++i) {
    Entry entry;
    entry.key = parser.Until(' ');
    entry.revision = parser.NumberUntil(' ');
    const std::string_view size_and_session = parser.Until('\n');
    const size_t space = std::min(size_and_session.find(' '), size_and_session.size());
    const uint64_t size = parser.Number(size_and_session.substr(0, space));
    if (space < size_and_session.size()) entry.session = size_and_session.substr(space + 1);
    entry.value = parser.Bytes(size);
    parser.Bytes(1);
    const std::string key = entry.key;
    table.entries_[key] = std::make_shared<const Entry>(std::move(entry));
  }
  if (!parser.ok() || !parser.rest().empty() || table.entries_.size() != count) {
    return absl::DataLossError("is damaged: its checksum matches but its entries do not parse");
  }
  return table;
}

Changes Difference(const Table* before, const Table& after, std::string_view prefix) {
  static const Table::Entries kNone;
  Changes changes{.revision = after.revision(), .put = {}, .deleted = {}};
  auto [old, old_end] = Range(before == nullptr ? kNone : before->entries(), prefix);
  auto [now, now_end] = Range(after.entries(), prefix);
  while (old != old_end || now != now_end) {
    const bool in_old = old != old_end && (now == now_end || old->first <= now->first);
    const bool in_now = now != now_end && (old == old_end || now->first <= old->first);
    if (!in_now) {
      changes.deleted.push_back(old->first);
    } else if (!in_old || (old->second != now->second && *old->second != *now->second)) {
      changes.put.push_back(*now->second);
    }
    if (in_old) ++old;
    if (in_now) ++now;
  }
  return changes;
}

}  // namespace sluice::state
