#include "qos/quotas.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <list>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "qos/quota_account.h"
#include "qos/quota_usage.h"
#include "state/state_store.h"

namespace sluice::qos {
namespace {

constexpr size_t kMostAccounts = 2;  // of one request: of its model, of all models

struct Tenant {
  std::string name;
  size_t shard = 0;
  std::vector<std::shared_ptr<QuotaAccount>> accounts;  // a reservation keeps those that a new rule took away
  int open = 0;
  std::list<Tenant*>::iterator idle;  // valid while open == 0
};

using Rules = std::vector<QuotaRule>;  // of one tenant, one per model

bool Covers(std::string_view rule_model, std::string_view model) { return rule_model == "*" || rule_model == model; }

std::string Subject(const std::string& tenant, const QuotaAccount& account) {
  return account.model() == "*" ? "tenant:" + tenant : fmt::format("tenant:{},model:{}", tenant, account.model());
}

int64_t Millis(WallTime wall) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(wall.time_since_epoch()).count();
}

// One refusal of all that lacks; `subjects` as many.
absl::Status Refuse(const std::vector<QuotaLack>& lacks, const std::vector<std::string>& subjects) {
  size_t worst = 0;
  const auto wait = [&](size_t i) { return lacks[i].retry_after.value_or(Duration::max()); };
  ErrorDetails details;
  for (size_t i = 0; i < lacks.size(); ++i) {
    if (wait(i) > wait(worst)) worst = i;
    details.violations.push_back(
        {.field = subjects[i],
         .description = fmt::format("{}: asks for {:.0f}, {:.0f} left of {:.0f}", lacks[i].limit, lacks[i].asked,
                                    lacks[i].left, lacks[i].allowed)});
  }
  details.retry_after = lacks[worst].retry_after;
  const std::string message = fmt::format("quota of {}: {}{}", subjects[worst], details.violations[worst].description,
                                          details.retry_after ? "" : "; never enough: ask for less");
  return MakeError(lacks[worst].reason, message, std::move(details));
}

}  // namespace

struct Quotas::Impl {
  Impl(std::vector<QuotaRule> rules, const Clock& c, MetricsRegistry& registry, state::StateStore* s);

  void Index(std::vector<QuotaRule> rules) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  const Rules& RulesOf(std::string_view tenant) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Tenant& TenantOf(std::string_view name, const Rules& its_rules, MonoTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void ForgetIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Its accounts are those of `its_rules`; what stays keeps its usage.
  static void Fit(Tenant& tenant, const Rules& its_rules, MonoTime now);
  absl::Status RefusalOf(const Tenant& tenant, std::string_view model, const QuotaAmounts& amounts, MonoTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Close(Reservation::Held& held, const QuotaAmounts& used) ABSL_LOCKS_EXCLUDED(mu);

  absl::Status Exchange() ABSL_LOCKS_EXCLUDED(mu);  // the first error; what could be exchanged was
  using Changes = std::array<std::vector<QuotaChange>, kQuotaShards>;
  Changes Untold() ABSL_LOCKS_EXCLUDED(mu);
  void Learn(size_t shard, const QuotaUsages& usages, const std::vector<QuotaChange>& told, WallTime wall)
      ABSL_LOCKS_EXCLUDED(mu);

  const Clock& clock;
  state::StateStore* const store;
  std::array<Counter*, 4> refusals;  // from kQuotaRequests
  Gauge *tenants_gauge, *reserved_prompt, *reserved_output;
  Gauge* stale;

  Mutex mu;  // protects all below; the clock is all that is called under it
  absl::flat_hash_map<std::string, Rules> named ABSL_GUARDED_BY(mu);
  Rules others ABSL_GUARDED_BY(mu);  // of every tenant not named
  absl::flat_hash_map<std::string, std::unique_ptr<Tenant>> tenants ABSL_GUARDED_BY(mu);
  std::list<Tenant*> idle ABSL_GUARDED_BY(mu);  // without open reservations, longest idle first
};

struct Quotas::Reservation::Held {
  Impl* impl;
  Tenant* tenant;  // not forgotten while it has one open
  QuotaAmounts reserved{};
  std::array<std::shared_ptr<QuotaAccount>, kMostAccounts> accounts;  // null: fewer
  std::array<QuotaAccount::Share, kMostAccounts> shares;
};

Quotas::Impl::Impl(std::vector<QuotaRule> rules, const Clock& c, MetricsRegistry& registry, state::StateStore* s)
    : clock(c), store(s) {
  auto& family = registry.AddCounter("sluice_qos_quota_refusals_total", "Requests beyond a quota", {"reason"});
  constexpr std::array<Reason, 4> kReasons = {Reason::kQuotaRequests, Reason::kQuotaConcurrency,
                                              Reason::kQuotaPromptTokens, Reason::kQuotaOutputTokens};
  for (size_t i = 0; i < refusals.size(); ++i) refusals[i] = &family.With({std::string(ReasonWord(kReasons[i]))});
  tenants_gauge = &registry.AddGauge("sluice_qos_quota_tenants", "Tenants whose usage is remembered").With({});
  auto& reserved = registry.AddGauge("sluice_qos_quota_reserved_tokens", "Tokens reserved and not settled", {"kind"});
  reserved_prompt = &reserved.With({"prompt"});
  reserved_output = &reserved.With({"output"});
  stale = &registry.AddGauge("sluice_qos_quota_stale", "1 while usage cannot be shared with other replicas").With({});
  MutexLock lock(mu);
  Index(std::move(rules));
}

void Quotas::Impl::Index(std::vector<QuotaRule> rules) {
  named.clear();
  others.clear();
  for (QuotaRule& rule : rules) {
    Rules& its_rules = rule.tenant == "*" ? others : named[rule.tenant];
    std::erase_if(its_rules, [&](const QuotaRule& earlier) { return earlier.model == rule.model; });
    its_rules.push_back(std::move(rule));
  }
}

const Rules& Quotas::Impl::RulesOf(std::string_view tenant) const {
  const auto it = named.find(ToAbsl(tenant));
  return it == named.end() ? others : it->second;
}

Tenant& Quotas::Impl::TenantOf(std::string_view name, const Rules& its_rules, MonoTime now) {
  if (const auto it = tenants.find(ToAbsl(name)); it != tenants.end()) return *it->second;
  auto made = std::make_unique<Tenant>();
  Tenant& tenant = *made;
  tenant.name = name;
  tenant.shard = QuotaShardOf(name);
  Fit(tenant, its_rules, now);
  tenant.idle = idle.insert(idle.end(), &tenant);
  tenants.emplace(tenant.name, std::move(made));
  ForgetIdle();
  tenants_gauge->Set(static_cast<double>(tenants.size()));
  return tenant;
}

void Quotas::Impl::ForgetIdle() {
  // The newest is about to be used.
  while (tenants.size() > kMaxTenants && idle.size() > 1) {
    const std::string name = idle.front()->name;
    idle.pop_front();
    tenants.erase(name);
  }
}

void Quotas::Impl::Fit(Tenant& tenant, const Rules& its_rules, MonoTime now) {
  std::vector<std::shared_ptr<QuotaAccount>> fitting;
  for (const QuotaRule& rule : its_rules) {
    const auto it =
        std::ranges::find_if(tenant.accounts, [&](const auto& account) { return account->model() == rule.model; });
    if (it == tenant.accounts.end()) {
      fitting.push_back(std::make_shared<QuotaAccount>(rule.model, rule.limits, now));
    } else {
      (*it)->SetLimits(rule.limits, now);
      fitting.push_back(*it);
    }
  }
  tenant.accounts = std::move(fitting);
}

absl::Status Quotas::Impl::RefusalOf(const Tenant& tenant, std::string_view model, const QuotaAmounts& amounts,
                                     MonoTime now) {
  std::vector<QuotaLack> lacks;
  std::vector<std::string> subjects;
  for (const auto& account : tenant.accounts) {
    if (!Covers(account->model(), model)) continue;
    account->Check(amounts, now, lacks);
    if (lacks.size() > subjects.size()) subjects.resize(lacks.size(), Subject(tenant.name, *account));
  }
  return lacks.empty() ? absl::OkStatus() : Refuse(lacks, subjects);
}

void Quotas::Impl::Close(Reservation::Held& held, const QuotaAmounts& used) {
  MutexLock lock(mu);
  const MonoTime now = clock.Now();
  for (size_t i = 0; i < kMostAccounts; ++i) {
    if (held.accounts[i] != nullptr) held.accounts[i]->Close(held.shares[i], used, now);
  }
  reserved_prompt->Add(-held.reserved[1]);
  reserved_output->Add(-held.reserved[2]);
  if (--held.tenant->open > 0) return;
  held.tenant->idle = idle.insert(idle.end(), held.tenant);
  ForgetIdle();
  tenants_gauge->Set(static_cast<double>(tenants.size()));
}

Quotas::Impl::Changes Quotas::Impl::Untold() {
  Changes changes;
  MutexLock lock(mu);
  for (const auto& [name, tenant] : tenants) {
    for (const auto& account : tenant->accounts) {
      if (account->untold() == QuotaAmounts{}) continue;
      changes[tenant->shard].push_back(
          {.account = {name, account->model()}, .buckets = account->buckets(), .delta = account->untold()});
    }
  }
  return changes;
}

void Quotas::Impl::Learn(size_t shard, const QuotaUsages& usages, const std::vector<QuotaChange>& told, WallTime wall) {
  absl::flat_hash_map<QuotaAccountName, QuotaAmounts> deltas;
  for (const QuotaChange& change : told) deltas.emplace(change.account, change.delta);
  MutexLock lock(mu);
  const MonoTime now = clock.Now();
  for (const auto& [name, tenant] : tenants) {
    if (tenant->shard != shard) continue;
    for (const auto& account : tenant->accounts) {
      const QuotaAccountName key{name, account->model()};
      const auto usage = usages.find(key);
      const auto delta = deltas.find(key);
      QuotaAmounts used{};
      if (usage != usages.end()) {
        const Duration passed = wall - WallTime(std::chrono::milliseconds(usage->second.at_ms));
        used = Refilled(usage->second.used, account->buckets(), passed);
      }
      account->Rebase(used, delta == deltas.end() ? QuotaAmounts{} : delta->second, now);
    }
  }
}

absl::Status Quotas::Impl::Exchange() {
  const Changes changes = Untold();
  auto listing = store->List(kQuotaPrefix);
  if (!listing.ok()) return listing.status();
  const WallTime wall = clock.WallNow();
  absl::Status result;
  for (size_t shard = 0; shard < kQuotaShards; ++shard) {
    state::Entry entry{.key = QuotaShardKey(shard), .value = {}, .revision = 0};
    const auto it = std::ranges::find(listing->entries, entry.key, &state::Entry::key);
    if (it != listing->entries.end()) entry = std::move(*it);
    const auto usages = ExchangeQuotaUsage(*store, std::move(entry), changes[shard], Millis(wall));
    if (usages.ok()) Learn(shard, *usages, changes[shard], wall);
    result.Update(usages.status());
  }
  return result;
}

Quotas::Quotas(std::vector<QuotaRule> rules, const Clock& clock, MetricsRegistry& metrics, state::StateStore* store)
    : impl_(std::make_unique<Impl>(std::move(rules), clock, metrics, store)) {}

Quotas::~Quotas() = default;

void Quotas::SetRules(std::vector<QuotaRule> rules) {
  MutexLock lock(impl_->mu);
  impl_->Index(std::move(rules));
  const MonoTime now = impl_->clock.Now();
  for (const auto& [name, tenant] : impl_->tenants) Impl::Fit(*tenant, impl_->RulesOf(name), now);
}

absl::StatusOr<Quotas::Reservation> Quotas::Reserve(const Request& request) {
  Impl& impl = *impl_;
  MutexLock lock(impl.mu);
  const Rules& rules = impl.RulesOf(request.tenant);
  if (std::ranges::none_of(rules, [&](const QuotaRule& rule) { return Covers(rule.model, request.model); })) {
    return Reservation();
  }
  const MonoTime now = impl.clock.Now();
  Tenant& tenant = impl.TenantOf(request.tenant, rules, now);
  const QuotaAmounts amounts = {1, static_cast<double>(std::max(0, request.prompt_tokens)),
                                static_cast<double>(std::max(0, request.max_tokens))};
  if (absl::Status refusal = impl.RefusalOf(tenant, request.model, amounts, now); !refusal.ok()) {
    const int reason = static_cast<int>(GetErrorDetails(refusal).reason) - static_cast<int>(Reason::kQuotaRequests);
    impl.refusals[static_cast<size_t>(reason)]->Add();
    if (tenant.open == 0) impl.idle.splice(impl.idle.end(), impl.idle, tenant.idle);  // it is not idle at all
    return refusal;
  }
  auto held = std::make_unique<Reservation::Held>();
  held->impl = &impl;
  held->tenant = &tenant;
  held->reserved = amounts;
  size_t count = 0;
  for (const auto& account : tenant.accounts) {
    if (!Covers(account->model(), request.model)) continue;
    held->accounts[count] = account;
    account->Open(held->shares[count++], amounts, now);
  }
  if (tenant.open++ == 0) impl.idle.erase(tenant.idle);
  impl.reserved_prompt->Add(amounts[1]);
  impl.reserved_output->Add(amounts[2]);
  return Reservation(std::move(held));
}

void Quotas::Sync() {
  if (impl_->store == nullptr) return;
  const absl::Status status = impl_->Exchange();
  const bool was_stale = impl_->stale->Value() > 0;
  impl_->stale->Set(status.ok() ? 0 : 1);
  if (status.ok() != was_stale) return;
  Log(status.ok() ? LogLevel::kInfo : LogLevel::kWarning,
      status.ok() ? "quotas are shared again" : "quotas are not shared: each replica counts alone",
      {{"error", std::string(status.message())}});
}

Quotas::Reservation::Reservation() = default;
Quotas::Reservation::Reservation(std::unique_ptr<Held> held) : held_(std::move(held)) {}
Quotas::Reservation::Reservation(Reservation&& other) noexcept = default;

Quotas::Reservation& Quotas::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    if (held_ != nullptr) held_->impl->Close(*held_, {});
    held_ = std::move(other.held_);
  }
  return *this;
}

Quotas::Reservation::~Reservation() {
  if (held_ != nullptr) held_->impl->Close(*held_, {});
}

void Quotas::Reservation::Settle(int prompt_tokens, int output_tokens) {
  if (held_ == nullptr) return;
  held_->impl->Close(
      *held_, {1, static_cast<double>(std::max(0, prompt_tokens)), static_cast<double>(std::max(0, output_tokens))});
  held_.reset();
}

}  // namespace sluice::qos
