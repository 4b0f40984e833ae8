#include "qos/quotas.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <list>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/log.h"
#include "base/mutex.h"
#include "base/reason.h"
#include "base/status.h"
#include "fmt/format.h"
#include "qos/quota_usage.h"
#include "qos/token_bucket.h"
#include "state/state_store.h"

namespace sluice::qos {
namespace {

constexpr double kMinute = 60;
constexpr char kPrefix[] = "qos/quota-usage/";
constexpr int kMaxReplicas = 1000;
constexpr size_t kMaxShareBytes = state::kMaxValueBytes / 2;
// A replica that has not written for so long has gone: what it had running has ended.
constexpr Duration kGoneAfter = std::chrono::seconds(30);
// When somebody else's request will end is not known.
constexpr Duration kRetryConcurrency = std::chrono::seconds(1);

double RequestCapacity(const QuotaLimits& l) {
  if (l.requests_per_second <= 0) return 0;
  return l.request_burst > 0 ? l.request_burst : std::max(1.0, l.requests_per_second);
}

// One rule's account of one tenant.
struct Account {
  Account(std::string k, const QuotaLimits& l, MonoTime now)
      : key(std::move(k)),
        limits(l),
        requests(RequestCapacity(l), l.requests_per_second, now),
        prompt(static_cast<double>(l.prompt_tokens_per_minute),
               static_cast<double>(l.prompt_tokens_per_minute) / kMinute, now),
        output(static_cast<double>(l.output_tokens_per_minute),
               static_cast<double>(l.output_tokens_per_minute) / kMinute, now) {}

  void Resize(const QuotaLimits& l, MonoTime now) {
    limits = l;
    requests.Resize(RequestCapacity(l), l.requests_per_second, now);
    const auto per_minute = [now](TokenBucket& bucket, int64_t n) {
      bucket.Resize(static_cast<double>(n), static_cast<double>(n) / kMinute, now);
    };
    per_minute(prompt, l.prompt_tokens_per_minute);
    per_minute(output, l.output_tokens_per_minute);
  }

  const std::string key;
  QuotaLimits limits;
  TokenBucket requests, prompt, output;
  int elsewhere = 0;  // running on other replicas, as far as is known
  QuotaUsage own;     // running totals of this replica; own.running: reservations out
};
using Accounts = std::list<std::shared_ptr<Account>>;  // used last, first

// What of a request a limit is about, and whether it is met.
struct Shortage {
  Reason reason;
  std::string what;                     // "prompt_tokens_per_minute 1000, 12 left, 300 asked for"
  std::optional<Duration> retry_after;  // nullopt: waiting does not help
};

std::optional<Shortage> Short(TokenBucket& bucket, double n, MonoTime now, Reason reason, std::string_view name,
                              double limit) {
  if (bucket.Has(n, now)) return std::nullopt;
  const double left = std::max(0.0, std::floor(bucket.Level(now)));
  if (n > bucket.capacity()) {
    return Shortage{reason, fmt::format("{} {:g}: {:g} asked for, which never fits", name, limit, n), std::nullopt};
  }
  return Shortage{reason, fmt::format("{} {:g}: {:g} left, {:g} asked for", name, limit, left, n),
                  bucket.WaitFor(n, now)};
}

std::optional<Shortage> FirstShortage(Account& a, const Request& request, MonoTime now) {
  const QuotaLimits& l = a.limits;
  const int running = a.own.running + a.elsewhere;
  if (l.concurrent_requests > 0 && running >= l.concurrent_requests) {
    return Shortage{Reason::kQuotaConcurrency,
                    fmt::format("concurrent_requests {}: {} run", l.concurrent_requests, running), kRetryConcurrency};
  }
  if (auto s = Short(a.requests, 1, now, Reason::kQuotaRequests, "requests_per_second", l.requests_per_second))
    return s;
  if (auto s = Short(a.prompt, request.prompt_tokens, now, Reason::kQuotaPromptTokens, "prompt_tokens_per_minute",
                     static_cast<double>(l.prompt_tokens_per_minute))) {
    return s;
  }
  return Short(a.output, request.max_tokens, now, Reason::kQuotaOutputTokens, "output_tokens_per_minute",
               static_cast<double>(l.output_tokens_per_minute));
}

}  // namespace

struct Quotas::Reservation::Held {
  Quotas::Impl* quotas;  // outlives every reservation
  std::vector<std::shared_ptr<Account>> accounts;
  int prompt_tokens, output_tokens;
};

struct Quotas::Impl {
  Impl(std::vector<QuotaRule> r, const Clock& c, MetricsRegistry& registry, state::StateStore* s)
      : clock(c),
        store(s),
        refusals(registry.AddCounter("sluice_qos_quota_refusals_total", "Requests beyond a quota", {"reason"})),
        tenants(registry.AddGauge("sluice_qos_quota_tenants", "Accounts of tenants that are remembered").With({})),
        stale(registry.AddGauge("sluice_qos_quota_stale", "1 while usage cannot be shared with other replicas")
                  .With({})) {
    auto& reserved = registry.AddGauge("sluice_qos_quota_reserved_tokens", "Reserved and not settled yet", {"kind"});
    reserved_prompt = &reserved.With({"prompt"});
    reserved_output = &reserved.With({"output"});
    SetRules(std::move(r));
  }

  void SetRules(std::vector<QuotaRule> r) ABSL_LOCKS_EXCLUDED(mu);
  // The accounts that a request is charged to; made when they are new. False: no room for another one.
  bool Collect(const Request& request, MonoTime now, std::vector<std::shared_ptr<Account>>& found)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  std::shared_ptr<Account> Find(const QuotaRule& rule, std::string_view tenant, MonoTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::Status Refuse(const Request& request, const Shortage& shortage, const Account& account)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Release(const Reservation::Held& held, int prompt_tokens, int output_tokens, bool used) ABSL_LOCKS_EXCLUDED(mu);

  // --- sharing ---
  struct Peer {
    uint64_t revision = 0;
    MonoTime changed{};
    QuotaUsages usages;  // what was charged here already
  };
  absl::Status Publish() ABSL_LOCKS_EXCLUDED(mu);
  void Learn(const state::Listing& listing) ABSL_LOCKS_EXCLUDED(mu);
  void Charge(const QuotaUsages& before, const QuotaUsages& after, MonoTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  const Clock& clock;
  state::StateStore* const store;
  Family<Counter>& refusals;
  Gauge &tenants, &stale;
  Gauge *reserved_prompt, *reserved_output;
  std::atomic<bool> limited{false};  // atomic: read by every request; false: there are no rules

  Mutex mu;  // leaf lock
  std::vector<QuotaRule> rules ABSL_GUARDED_BY(mu);
  Accounts accounts ABSL_GUARDED_BY(mu);
  std::unordered_map<std::string_view, Accounts::iterator> by_key ABSL_GUARDED_BY(mu);  // views of Account::key

  // Of Sync's thread.
  std::string own_key;
  uint64_t own_revision = 0;
  std::map<std::string, Peer> peers;
};

void Quotas::Impl::SetRules(std::vector<QuotaRule> r) {
  MutexLock lock(mu);
  const MonoTime now = clock.Now();
  rules = std::move(r);
  // An account belongs to the rule that its key begins with.
  for (auto it = accounts.begin(); it != accounts.end();) {
    Account& account = **it;
    const auto rule = std::find_if(rules.begin(), rules.end(), [&account](const QuotaRule& candidate) {
      return account.key.starts_with(fmt::format("{}\n{}\n", candidate.tenant, candidate.model));
    });
    if (rule == rules.end()) {
      by_key.erase(account.key);
      it = accounts.erase(it);
      continue;
    }
    account.Resize(rule->limits, now);
    ++it;
  }
  tenants.Set(static_cast<double>(accounts.size()));
  limited = !rules.empty();
}

bool Quotas::Impl::MakeRoom() {
  if (accounts.size() < kMaxTenants) return true;
  for (auto it = std::prev(accounts.end());; --it) {
    if ((*it)->own.running == 0) {
      by_key.erase((*it)->key);
      accounts.erase(it);
      return true;
    }
    if (it == accounts.begin()) return false;
  }
}

std::shared_ptr<Account> Quotas::Impl::Find(const QuotaRule& rule, std::string_view tenant, MonoTime now) {
  std::string key = fmt::format("{}\n{}\n{}", rule.tenant, rule.model, tenant);
  if (const auto known = by_key.find(key); known != by_key.end()) {
    accounts.splice(accounts.begin(), accounts, known->second);
    return accounts.front();
  }
  if (!MakeRoom()) return nullptr;
  accounts.push_front(std::make_shared<Account>(std::move(key), rule.limits, now));
  by_key.emplace(accounts.front()->key, accounts.begin());
  tenants.Set(static_cast<double>(accounts.size()));
  return accounts.front();
}

bool Quotas::Impl::Collect(const Request& request, MonoTime now, std::vector<std::shared_ptr<Account>>& found) {
  const bool named = std::any_of(rules.begin(), rules.end(),
                                 [&request](const QuotaRule& rule) { return rule.tenant == request.tenant; });
  for (const QuotaRule& rule : rules) {
    if (named ? rule.tenant != request.tenant : rule.tenant != "*") continue;
    if (rule.model != "*" && rule.model != request.model) continue;
    found.push_back(Find(rule, request.tenant, now));
    if (found.back() == nullptr) return false;
  }
  return true;
}

absl::Status Quotas::Impl::Refuse(const Request& request, const Shortage& shortage, const Account& account) {
  refusals.With({std::string(ReasonWord(shortage.reason))}).Add();
  const size_t model_at = account.key.find('\n') + 1;
  const std::string model = account.key.substr(model_at, account.key.find('\n', model_at) - model_at);
  return MakeError(shortage.reason,
                   fmt::format("tenant '{}' is beyond its quota for {}: {}", request.tenant,
                               model == "*" ? "all models" : fmt::format("model '{}'", model), shortage.what),
                   {.retry_after = shortage.retry_after,
                    .violations = {{fmt::format("tenant:{}/model:{}", request.tenant, model), shortage.what}}});
}

void Quotas::Impl::Release(const Reservation::Held& held, int prompt_tokens, int output_tokens, bool used) {
  MutexLock lock(mu);
  const MonoTime now = clock.Now();
  for (const std::shared_ptr<Account>& account : held.accounts) {
    Account& a = *account;
    const int prompt_back = held.prompt_tokens - prompt_tokens, output_back = held.output_tokens - output_tokens;
    a.prompt.GiveBack(prompt_back, now);
    a.output.GiveBack(output_back, now);
    if (!used) a.requests.GiveBack(1, now);
    a.own.prompt_tokens -= static_cast<uint64_t>(prompt_back);
    a.own.output_tokens -= static_cast<uint64_t>(output_back);
    if (!used) --a.own.requests;
    --a.own.running;
  }
  reserved_prompt->Add(-held.prompt_tokens);
  reserved_output->Add(-held.output_tokens);
}

Quotas::Quotas(std::vector<QuotaRule> rules, const Clock& clock, MetricsRegistry& metrics, state::StateStore* store)
    : impl_(std::make_unique<Impl>(std::move(rules), clock, metrics, store)) {}

Quotas::~Quotas() = default;

void Quotas::SetRules(std::vector<QuotaRule> rules) { impl_->SetRules(std::move(rules)); }

absl::StatusOr<Quotas::Reservation> Quotas::Reserve(const Request& request) {
  Reservation reservation;
  if (!impl_->limited.load(std::memory_order_relaxed)) return reservation;
  MutexLock lock(impl_->mu);
  const MonoTime now = impl_->clock.Now();
  std::vector<std::shared_ptr<Account>> accounts;
  if (!impl_->Collect(request, now, accounts)) {
    impl_->refusals.With({std::string(ReasonWord(Reason::kQuotaConcurrency))}).Add();
    return MakeError(Reason::kQuotaConcurrency,
                     fmt::format("{} tenants have requests running, which is all that quotas remember", kMaxTenants),
                     {.retry_after = kRetryConcurrency});
  }
  if (accounts.empty()) return reservation;
  for (const std::shared_ptr<Account>& account : accounts) {  // all or nothing
    if (auto shortage = FirstShortage(*account, request, now)) return impl_->Refuse(request, *shortage, *account);
  }
  for (const std::shared_ptr<Account>& account : accounts) {
    account->requests.Take(1, now);
    account->prompt.Take(request.prompt_tokens, now);
    account->output.Take(request.max_tokens, now);
    ++account->own.requests;
    account->own.prompt_tokens += static_cast<uint64_t>(request.prompt_tokens);
    account->own.output_tokens += static_cast<uint64_t>(request.max_tokens);
    ++account->own.running;
  }
  impl_->reserved_prompt->Add(request.prompt_tokens);
  impl_->reserved_output->Add(request.max_tokens);
  reservation.held_ = std::make_unique<Reservation::Held>(
      Reservation::Held{impl_.get(), std::move(accounts), request.prompt_tokens, request.max_tokens});
  return reservation;
}

Quotas::Reservation::Reservation() = default;
Quotas::Reservation::Reservation(Reservation&& other) noexcept = default;

Quotas::Reservation& Quotas::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    if (const auto held = std::exchange(held_, nullptr)) held->quotas->Release(*held, 0, 0, /*used=*/false);
    held_ = std::move(other.held_);
  }
  return *this;
}

Quotas::Reservation::~Reservation() {
  if (held_ != nullptr) held_->quotas->Release(*held_, 0, 0, /*used=*/false);
}

void Quotas::Reservation::Settle(int prompt_tokens, int output_tokens) {
  if (const auto held = std::exchange(held_, nullptr)) {
    held->quotas->Release(*held, prompt_tokens, output_tokens, /*used=*/true);
  }
}

// One key a replica, found by compare-and-set: the first number that is free.
absl::Status Quotas::Impl::Publish() {
  QuotaUsages usages;
  {
    MutexLock lock(mu);
    for (const std::shared_ptr<Account>& account : accounts) usages.emplace(account->key, account->own);
  }
  const std::string value = EncodeQuotaUsages(usages, kMaxShareBytes);
  absl::StatusOr<uint64_t> revision = absl::AbortedError("no key yet");
  if (!own_key.empty()) revision = store->Put(own_key, value, own_revision);
  for (int n = 1; absl::IsAborted(revision.status()) && n <= kMaxReplicas; ++n) {
    own_key = fmt::format("{}{}", kPrefix, n);
    revision = store->Put(own_key, value, 0);
  }
  if (!revision.ok()) return revision.status();
  own_revision = *revision;
  return absl::OkStatus();
}

void Quotas::Impl::Charge(const QuotaUsages& before, const QuotaUsages& after, MonoTime now) {
  for (const auto& [key, usage] : after) {
    const auto known = by_key.find(key);
    if (known == by_key.end()) continue;  // nobody asked here yet: the account will start full, as after an eviction
    Account& a = **known->second;
    const auto was = before.find(key);
    const QuotaUsage last = was == before.end() ? QuotaUsage{} : was->second;
    // A total may fall when reservations are given back.
    const auto grown = [](uint64_t to, uint64_t from) { return static_cast<double>(static_cast<int64_t>(to - from)); };
    a.requests.Take(grown(usage.requests, last.requests), now);
    a.prompt.Take(grown(usage.prompt_tokens, last.prompt_tokens), now);
    a.output.Take(grown(usage.output_tokens, last.output_tokens), now);
    a.elsewhere += usage.running;
  }
}

void Quotas::Impl::Learn(const state::Listing& listing) {
  MutexLock lock(mu);
  const MonoTime now = clock.Now();
  for (const std::shared_ptr<Account>& account : accounts) account->elsewhere = 0;
  std::map<std::string, Peer> seen;
  for (const state::Entry& entry : listing.entries) {
    if (entry.key == own_key) continue;
    std::optional<QuotaUsages> usages = DecodeQuotaUsages(entry.value);
    if (!usages) continue;
    const auto known = peers.find(entry.key);
    // A peer that is new to us: its totals were before our time.
    Peer peer = known == peers.end() ? Peer{.changed = now, .usages = *usages} : std::move(known->second);
    if (peer.revision != entry.revision) peer.changed = now;
    peer.revision = entry.revision;
    if (now - peer.changed < kGoneAfter) {
      Charge(peer.usages, *usages, now);
      peer.usages = *std::move(usages);
    }
    seen.emplace(entry.key, std::move(peer));
  }
  peers = std::move(seen);
}

void Quotas::Sync() {
  Impl& impl = *impl_;
  if (impl.store == nullptr) return;
  absl::Status status = impl.Publish();
  if (status.ok()) {
    const absl::StatusOr<state::Listing> listing = impl.store->List(kPrefix);
    status = listing.status();
    if (listing.ok()) {
      impl.Learn(*listing);
      for (const auto& [key, peer] : impl.peers) {
        // Its revision guards against deleting one that has come back. Whether it worked is seen next time.
        if (impl.clock.Now() - peer.changed >= kGoneAfter) (void)impl.store->Delete(key, peer.revision);
      }
    }
  }
  const bool was_stale = impl.stale.Value() > 0;
  impl.stale.Set(status.ok() ? 0 : 1);
  if (status.ok() == was_stale) {
    Log(status.ok() ? LogLevel::kInfo : LogLevel::kWarning,
        status.ok() ? "quotas are shared again" : "quotas are not shared: each replica counts alone",
        {{"error", std::string(status.message())}});
  }
}

}  // namespace sluice::qos
