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

constexpr std::string_view kFormat = "sluice-state 2 ";  // then the SHA-256 of everything after this line

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
  uint64_t NumberUntil(char end) {
    const std::string_view word = Until(end);
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

absl::Status Table::CheckExpected(std::string_view key, uint64_t expected) const {
  const auto found = entries_.find(key);
  const uint64_t current = found == entries_.end() ? 0 : found->second->revision;
  if (current == expected) return {};
  return MakeError(Reason::kRevisionConflict,
                   fmt::format("'{}' is at revision {}, expected {} (0: no such key)", key, current, expected),
                   {.metadata = {{"current_revision", std::to_string(current)}}});
}

absl::StatusOr<uint64_t> Table::Put(std::string_view key, std::string_view value, uint64_t expected,
                                    const PutOptions& options) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  if (options.fence) {
    const auto found = entries_.find(options.fence->key);
    if (found == entries_.end() || found->second->revision != options.fence->revision) {
      return MakeError(Reason::kRevisionConflict,
                       fmt::format("'{}' is no longer at revision {}", options.fence->key, options.fence->revision),
                       {.metadata = {{"fence", options.fence->key}}});
    }
  }
  if (value.size() > kMaxValueBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the value of '{}' has {} bytes; allowed {}", key, value.size(), kMaxValueBytes));
  }
  SLUICE_RETURN_IF_ERROR(CheckExpected(key, expected));
  const auto old = entries_.find(key);
  const size_t freed = old == entries_.end() ? 0 : key.size() + old->second->value.size();
  if (const size_t bytes = Bytes() - freed + key.size() + value.size(); bytes > kMaxTotalBytes) {
    return absl::ResourceExhaustedError(
        fmt::format("the state store is full: {} bytes with '{}'; allowed {}", bytes, key, kMaxTotalBytes));
  }
  if (old == entries_.end() && entries_.size() >= kMaxKeys) {
    return absl::ResourceExhaustedError(fmt::format("the state store is full: {} keys are allowed", kMaxKeys));
  }
  ++revision_;
  entries_[std::string(key)] =
      std::make_shared<const Entry>(Entry{.key = std::string(key),
                                          .value = std::string(value),
                                          .revision = revision_,
                                          .session = options.session == nullptr ? "" : options.session->id()});
  return revision_;
}

std::set<std::string> Table::Sessions() const {
  std::set<std::string> sessions;
  for (const auto& [key, entry] : entries_) {
    if (!entry->session.empty()) sessions.insert(entry->session);
  }
  return sessions;
}

bool Table::EndSession(std::string_view session) {
  const size_t removed = std::erase_if(entries_, [session](const auto& e) { return e.second->session == session; });
  if (removed > 0) ++revision_;
  return removed > 0;
}

absl::StatusOr<uint64_t> Table::Delete(std::string_view key, uint64_t expected) {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  if (expected == 0) return absl::InvalidArgumentError("only a key that exists can be deleted: expected is 0");
  SLUICE_RETURN_IF_ERROR(CheckExpected(key, expected));
  entries_.erase(entries_.find(key));
  return ++revision_;
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
    body += fmt::format("{} {} {} {}\n", key, entry->revision, entry->value.size(), entry->session);
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
    const uint64_t size = parser.NumberUntil(' ');
    entry.session = parser.Until('\n');
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
