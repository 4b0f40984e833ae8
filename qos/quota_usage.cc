#include "qos/quota_usage.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "qos/policy_bucket.h"

namespace sluice::qos {
namespace {

constexpr int kTries = 8;
constexpr int64_t kForgetMs = 3'600'000;

std::optional<std::pair<QuotaAccountName, QuotaUsage>> ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, '\t');
  std::pair<QuotaAccountName, QuotaUsage> parsed;
  if (words.size() != 3 + kQuotaKindCount || !absl::CUnescape(words[0], &parsed.first.first) ||
      !absl::CUnescape(words[1], &parsed.first.second) || !absl::SimpleAtoi(words[2], &parsed.second.at_ms)) {
    return std::nullopt;
  }
  for (size_t k = 0; k < kQuotaKindCount; ++k) {
    double& used = parsed.second.used[k];
    if (!absl::SimpleAtod(words[3 + k], &used) || !std::isfinite(used) || used < 0) return std::nullopt;
  }
  return parsed;
}

void Add(const QuotaChange& change, int64_t now_ms, QuotaUsages& usages) {
  QuotaUsage& usage = usages[change.account];
  // A replica whose clock is behind takes the other's time: nothing refills twice.
  const int64_t at = std::max(now_ms, usage.at_ms);
  usage.used = Refilled(usage.used, change.buckets, std::chrono::milliseconds(at - usage.at_ms));
  usage.at_ms = at;
  for (size_t k = 0; k < kQuotaKindCount; ++k) usage.used[k] = std::max(0.0, usage.used[k] + change.delta[k]);
}

}  // namespace

size_t QuotaShardOf(std::string_view tenant) { return StableHash(tenant) % kQuotaShards; }

std::string QuotaShardKey(size_t shard) { return fmt::format("{}{:02}", kQuotaPrefix, shard); }

QuotaUsages ParseQuotaUsage(std::string_view text) {
  QuotaUsages usages;
  for (absl::string_view line : absl::StrSplit(ToAbsl(text), '\n', absl::SkipEmpty())) {
    if (auto parsed = ParseLine(line)) usages.insert(*std::move(parsed));
  }
  return usages;
}

std::string FormatQuotaUsage(const QuotaUsages& usages, int64_t now_ms) {
  std::string text;
  for (const auto& [account, usage] : usages) {
    const auto& used = usage.used;
    if (usage.at_ms < now_ms - kForgetMs || std::ranges::all_of(used, [](double u) { return u <= 0; })) continue;
    std::string line = fmt::format("{}\t{}\t{}\t{:.3f}\t{:.3f}\t{:.3f}\n", absl::CEscape(account.first),
                                   absl::CEscape(account.second), usage.at_ms, used[0], used[1], used[2]);
    if (text.size() + line.size() > state::kMaxValueBytes) break;
    text += line;
  }
  return text;
}

absl::StatusOr<QuotaUsages> ExchangeQuotaUsage(state::StateStore& store, state::Entry entry,
                                               const std::vector<QuotaChange>& changes, int64_t now_ms) {
  for (int i = 0;; ++i) {
    QuotaUsages usages = ParseQuotaUsage(entry.value);
    if (changes.empty()) return usages;
    for (const QuotaChange& change : changes) Add(change, now_ms, usages);
    const auto put = store.Put(entry.key, FormatQuotaUsage(usages, now_ms), entry.revision);
    if (put.ok()) return usages;
    if (!absl::IsAborted(put.status()) || i + 1 == kTries) return put.status();
    auto newer = store.Get(entry.key);
    if (newer.ok()) {
      entry = *std::move(newer);
    } else if (absl::IsNotFound(newer.status())) {
      entry = {.key = std::move(entry.key), .value = {}, .revision = 0};
    } else {
      return newer.status();
    }
  }
}

}  // namespace sluice::qos
