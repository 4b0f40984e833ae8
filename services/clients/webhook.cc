#include "services/clients/webhook.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/time/time.h"
#include "base/curl/curl_handle.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/strings.h"
#include "base/thread_name.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::services {
namespace {

constexpr long kTooManyRequests = 429, kRequestTimeout = 408;
constexpr size_t kMaxRemembered = 4096;  // alerts that were sent, to tell duplicates

struct Delivery {
  std::string id, body, what;  // what: for the log
  int failures = 0;
};

enum class Result { kOk, kRetry, kRefused };

// Nobody reads the answer.
size_t Discard(char*, size_t size, size_t count, void*) { return size * count; }

// Called by libcurl at least once a second: non-zero ends the transfer.
int Interrupted(void* stopping, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(stopping)->load() ? 1 : 0;
}

std::string Encode(const Alert& alert, const std::string& id, const std::string& instance, WallTime now) {
  const nlohmann::json body = {
      {"id", id},
      {"time", absl::FormatTime(absl::RFC3339_sec, absl::FromChrono(now), absl::UTCTimeZone())},
      {"instance", instance},
      {"policy", alert.policy},
      {"metric", alert.metric},
      {"state", alert.state},
      {"severity", alert.severity},
      {"value", alert.value},
      {"threshold", alert.threshold},
      {"step", alert.step},
      {"dry_run", alert.dry_run},
      {"message", alert.message}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// For logs: scheme, host and port. Paths and queries of webhooks are secrets of their receivers.
std::string Origin(std::string_view url) {
  const size_t host = url.find("://") + 3;
  const std::string_view authority = url.substr(host, url.find_first_of("/?#", host) - host);
  return fmt::format("{}{}", url.substr(0, host), authority.substr(authority.rfind('@') + 1));
}

absl::Status Check(const WebhookOptions& options) {
  if (options.name.empty()) return absl::InvalidArgumentError("a webhook without a name");
  if (options.url.starts_with("https://") || options.url.starts_with("http://")) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the url of webhook '{}' must begin with https:// or http://", options.name));
}

struct Series {
  Counter &sent, &failed, &duplicate, &queue_full, &ok, &retry, &refused;
  Gauge& queued;
};

}  // namespace

Duration WebhookBackoff(const WebhookOptions& options, int failures, Duration retry_after, double random) {
  const double doubled = ToSeconds(options.initial_backoff) * std::exp2(std::min(failures - 1, 60));
  const double delay = std::min(doubled, ToSeconds(options.max_backoff)) * (1 - random / 2);
  return std::max(FromMillis(delay * 1e3), std::min(retry_after, options.max_backoff));
}

std::string WebhookSignature(std::string_view secret, std::string_view body) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(body.data()), body.size(), digest.data(), &size);
  std::string out = "sha256=";
  for (unsigned int i = 0; i < size; ++i) fmt::format_to(std::back_inserter(out), "{:02x}", digest[i]);
  return out;
}

namespace {

// One receiver with its thread.
class Sender {
 public:
  Sender(WebhookOptions options, const Clock& clock, std::function<double()> random, const Series& series)
      : options_(std::move(options)), clock_(clock), random_(std::move(random)), series_(series) {
    thread_ = std::thread([this] { Run(); });
  }
  ~Sender() {
    size_t left = 0;
    {
      MutexLock lock(mu_);
      stopping_ = true;
      left = queue_.size();
    }
    wake_.SignalAll();
    thread_.join();
    if (left > 0)
      LogWarning("alerts dropped at the end", {{"webhook", options_.name}, {"alerts", std::to_string(left)}});
  }

  Webhooks::Outcome Post(const Alert& alert, const std::string& instance) ABSL_LOCKS_EXCLUDED(mu_);
  const WebhookOptions& options() const { return options_; }

 private:
  void Run();
  // Waits for a delivery that is due and takes it; nullopt: the end.
  std::optional<Delivery> Next() ABSL_LOCKS_EXCLUDED(mu_);
  void Deliver(Delivery delivery) ABSL_LOCKS_EXCLUDED(mu_);
  Result Attempt(const Delivery& delivery, Duration* retry_after, std::string* error);
  bool Duplicate(const Alert& alert, MonoTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Show() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { series_.queued.Set(static_cast<double>(queue_.size())); }

  const WebhookOptions options_;
  const Clock& clock_;
  const std::function<double()> random_;
  const Series series_;
  CurlHandle curl_;  // the thread's; keeps the connection

  Mutex mu_;
  CondVar wake_;
  std::atomic<bool> stopping_{false};  // atomic: libcurl's callback reads it without the lock
  std::multimap<MonoTime, Delivery> queue_ ABSL_GUARDED_BY(mu_);  // by when it is due
  int in_flight_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t numbered_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::tuple<std::string, std::string, std::string>, MonoTime> posted_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

bool Sender::Duplicate(const Alert& alert, MonoTime now) {
  if (options_.dedup_window <= Duration::zero()) return false;
  std::erase_if(posted_, [&](const auto& entry) { return now - entry.second >= options_.dedup_window; });
  const auto key = std::make_tuple(alert.policy, alert.metric, alert.state);
  if (posted_.count(key) > 0) return true;
  if (posted_.size() < kMaxRemembered) posted_[key] = now;
  return false;
}

Webhooks::Outcome Sender::Post(const Alert& alert, const std::string& instance) {
  const WallTime wall = clock_.WallNow();
  {
    MutexLock lock(mu_);
    const MonoTime now = clock_.Now();
    // A full queue first: what is dropped must not count as posted.
    if (static_cast<int>(queue_.size()) + in_flight_ >= options_.max_queue) {
      series_.queue_full.Add();
      return Webhooks::Outcome::kQueueFull;
    }
    if (Duplicate(alert, now)) {
      series_.duplicate.Add();
      return Webhooks::Outcome::kDuplicate;
    }
    const std::string id =
        Sha256Hex(fmt::format("{} {} {} {}", instance, options_.name, wall.time_since_epoch().count(), ++numbered_))
            .substr(0, 32);
    queue_.emplace(now, Delivery{.id = id,
                                 .body = Encode(alert, id, instance, wall),
                                 .what = fmt::format("{} {} {}", alert.policy, alert.metric, alert.state)});
    Show();
  }
  wake_.SignalAll();
  return Webhooks::Outcome::kQueued;
}

void Sender::Run() {
  NameThisThread("sluice-webhook");
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);  // OpenSSL writes without MSG_NOSIGNAL
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  curl_.reset(curl_easy_init());
  while (std::optional<Delivery> delivery = Next()) Deliver(*std::move(delivery));
}

std::optional<Delivery> Sender::Next() {
  MutexLock lock(mu_);
  while (!stopping_) {
    if (queue_.empty()) {
      wake_.Wait(mu_);
      continue;
    }
    const Duration left = queue_.begin()->first - clock_.Now();
    if (left > Duration::zero()) {
      wake_.WaitFor(mu_, left);
      continue;
    }
    Delivery delivery = std::move(queue_.begin()->second);
    queue_.erase(queue_.begin());
    ++in_flight_;
    Show();
    return delivery;
  }
  return std::nullopt;
}

void Sender::Deliver(Delivery delivery) {
  Duration retry_after = Duration::zero();
  std::string error;
  const Result result = Attempt(delivery, &retry_after, &error);
  if (stopping_) return;
  MutexLock lock(mu_);
  --in_flight_;
  switch (result) {
    case Result::kOk:
      series_.ok.Add();
      series_.sent.Add();
      return;
    case Result::kRetry:
      series_.retry.Add();
      break;
    case Result::kRefused:
      series_.refused.Add();
      break;
  }
  const bool last = result == Result::kRefused || ++delivery.failures >= options_.max_attempts;
  if (last) {
    series_.failed.Add();
    LogWarning("alert not delivered", {{"webhook", options_.name}, {"alert", delivery.what}, {"error", error}});
    return;
  }
  const Duration delay = WebhookBackoff(options_, delivery.failures, retry_after, random_());
  queue_.emplace(SaturatingAdd(clock_.Now(), delay), std::move(delivery));
  Show();
}

Result Sender::Attempt(const Delivery& delivery, Duration* retry_after, std::string* error) {
  CURL* const h = curl_.get();
  if (h == nullptr) {
    *error = "libcurl has no memory";
    return Result::kRetry;
  }
  curl_easy_reset(h);
  CurlHeaders headers(curl_slist_append(nullptr, "Expect:"));  // never wait for "100 Continue"
  AddCurlHeader("Content-Type", "application/json", &headers);
  AddCurlHeader("x-sluice-delivery", delivery.id, &headers);
  if (!options_.secret.empty()) {
    AddCurlHeader("x-sluice-signature-256", WebhookSignature(options_.secret, delivery.body), &headers);
  }
  std::array<char, CURL_ERROR_SIZE> detail{};
  curl_easy_setopt(h, CURLOPT_URL, options_.url.c_str());
  curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(delivery.body.size()));
  curl_easy_setopt(h, CURLOPT_POSTFIELDS, delivery.body.c_str());
  curl_easy_setopt(h, CURLOPT_USERAGENT, "sluice");
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(ToMillis(options_.timeout))));
  curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L);
  if (!options_.ca_file.empty()) curl_easy_setopt(h, CURLOPT_CAINFO, options_.ca_file.c_str());
  curl_easy_setopt(h, CURLOPT_ERRORBUFFER, detail.data());
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, &Discard);
  curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, &Interrupted);
  curl_easy_setopt(h, CURLOPT_XFERINFODATA, &stopping_);
  const CURLcode code = curl_easy_perform(h);
  if (code != CURLE_OK) {
    *error = std::string(StatusOfCurl(code, Origin(options_.url), detail.data()).message());
    return Result::kRetry;
  }
  long status = 0;
  curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 200 && status < 300) return Result::kOk;
  *error = fmt::format("the receiver answered {}", status);
  curl_off_t seconds = 0;
  curl_easy_getinfo(h, CURLINFO_RETRY_AFTER, &seconds);
  *retry_after = std::chrono::seconds(std::clamp<curl_off_t>(seconds, 0, 24 * 3600));
  return status >= 500 || status == kTooManyRequests || status == kRequestTimeout ? Result::kRetry : Result::kRefused;
}

}  // namespace

struct Webhooks::Impl {
  using Senders = std::map<std::string, std::unique_ptr<Sender>, std::less<>>;

  const std::string instance;
  const Clock& clock;
  Family<Counter>&alerts, &attempts;
  Family<Gauge>& queued;
  Mutex random_mu;
  std::function<double()> random ABSL_GUARDED_BY(random_mu);
  Mutex mu;  // taken before a sender's own
  Senders senders ABSL_GUARDED_BY(mu);

  double Random() {
    MutexLock lock(random_mu);
    return random();
  }
  std::unique_ptr<Sender> Make(const WebhookOptions& options) {
    const std::string& name = options.name;
    return std::make_unique<Sender>(
        options, clock, [this] { return Random(); },
        Series{.sent = alerts.With({name, "sent"}),
               .failed = alerts.With({name, "failed"}),
               .duplicate = alerts.With({name, "duplicate"}),
               .queue_full = alerts.With({name, "queue_full"}),
               .ok = attempts.With({name, "ok"}),
               .retry = attempts.With({name, "retry"}),
               .refused = attempts.With({name, "refused"}),
               .queued = queued.With({name})});
  }
};

Webhooks::Webhooks(std::string instance, const Clock& clock, std::function<double()> random, MetricsRegistry& metrics)
    : impl_(new Impl{
          .instance = std::move(instance),
          .clock = clock,
          .alerts = metrics.AddCounter("sluice_webhook_alerts_total", "Alerts", {"webhook", "outcome"}, 1000),
          .attempts =
              metrics.AddCounter("sluice_webhook_attempts_total", "Requests to receivers", {"webhook", "result"}, 1000),
          .queued = metrics.AddGauge("sluice_webhook_queued", "Alerts that wait", {"webhook"}),
          .random = std::move(random),
      }) {
  InitCurl();
}

Webhooks::~Webhooks() = default;

absl::Status Webhooks::Set(std::vector<WebhookOptions> webhooks) {
  std::map<std::string, int> names;
  for (const WebhookOptions& options : webhooks) {
    if (absl::Status status = Check(options); !status.ok()) return status;
    if (++names[options.name] > 1) {
      return absl::InvalidArgumentError(fmt::format("two webhooks are called '{}'", options.name));
    }
  }
  Impl::Senders gone;  // ended outside the lock: that takes its time
  MutexLock lock(impl_->mu);
  gone.swap(impl_->senders);
  for (const WebhookOptions& options : webhooks) {
    const auto before = gone.find(options.name);
    const bool same = before != gone.end() && before->second->options() == options;
    impl_->senders[options.name] = same ? std::move(before->second) : impl_->Make(options);
  }
  return absl::OkStatus();
}

Webhooks::Outcome Webhooks::Post(std::string_view webhook, const Alert& alert) {
  MutexLock lock(impl_->mu);
  const auto found = impl_->senders.find(webhook);
  return found == impl_->senders.end() ? Outcome::kUnknown : found->second->Post(alert, impl_->instance);
}

}  // namespace sluice::services
