#include "services/grpc/call_context.h"

#include <fmt/format.h>
#include <grpcpp/server_context.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"

namespace sluice::services {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxHeaderBytes = 256;
constexpr std::array<std::string_view, 4> kDoorHeaders = {"x-sluice-class", "x-sluice-tenant", "x-session-id",
                                                          "x-llm-d-slo-ttft-ms"};
// A deadline this far away is none; also keeps the arithmetic below clear of overflow.
constexpr int64_t kNoDeadlineSeconds = int64_t{10} * 365 * 24 * 3600;

std::string_view View(const grpc::string_ref& s) { return {s.data(), s.size()}; }

std::string Hex(const unsigned char* bytes, size_t n) {
  std::string out;
  out.reserve(2 * n);
  for (size_t i = 0; i < n; ++i) fmt::format_to(std::back_inserter(out), "{:02x}", bytes[i]);
  return out;
}

absl::StatusOr<std::string_view> BearerToken(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  if (first == last) {
    return MakeError(Reason::kTokenMissing, "this server needs a token: send 'authorization: Bearer <token>'");
  }
  // Two tokens mean that somebody on the way added one: guessing which counts would be a hole.
  if (std::next(first) != last) return MakeError(Reason::kTokenUnknown, "'authorization' was sent more than once");
  std::string_view value = View(first->second);
  constexpr std::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(ToAbsl(value), ToAbsl(kScheme))) {
    return MakeError(Reason::kTokenMissing, "'authorization' must be 'Bearer <token>'");
  }
  value.remove_prefix(kScheme.size());
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  if (value.empty()) return MakeError(Reason::kTokenMissing, "the bearer token is empty");
  return value;
}

// The header's value when it was sent and is fit for logs and trailers; the first one when sent twice.
absl::StatusOr<std::optional<std::string>> ReadHeader(const grpc::CallbackServerContext& context, std::string_view name,
                                                      size_t max_bytes) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(grpc::string_ref(name.data(), name.size()));
  if (it == metadata.end() || it->second.empty()) return std::nullopt;
  const std::string_view value = View(it->second);
  const std::string field = fmt::format("header {}", name);
  if (value.size() > max_bytes) {
    return InvalidFields({{field, fmt::format("got {} bytes; allowed up to {}", value.size(), max_bytes)}});
  }
  if (!std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c < 0x7F; })) {
    return InvalidFields({{field, "got a byte that is not printable; allowed is printable ASCII"}});
  }
  return std::string(value);
}

// gRPC clients number their retries so (gRFC A6).
int PreviousAttempts(const grpc::CallbackServerContext& context) {
  const auto it = context.client_metadata().find("grpc-previous-rpc-attempts");
  if (it == context.client_metadata().end()) return 0;
  int attempts = 0;
  const std::string_view value = View(it->second);
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), attempts);
  return error == std::errc() && end == value.data() + value.size() ? std::max(attempts, 0) : 0;
}

MonoTime DeadlineOn(const Clock& clock, const grpc::CallbackServerContext& context) {
  // Not context.deadline(): its nanoseconds overflow for the very long timeouts that some clients send for "none".
  const gpr_timespec at = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_REALTIME);
  const Duration wall = clock.WallNow().time_since_epoch();
  const auto wall_seconds = std::chrono::duration_cast<std::chrono::seconds>(wall).count();
  if (at.tv_sec > wall_seconds + kNoDeadlineSeconds) return kInfiniteFuture;
  return SaturatingAdd(clock.Now(), std::chrono::seconds(at.tv_sec) + std::chrono::nanoseconds(at.tv_nsec) - wall);
}

struct OpenCalls {
  Mutex mu;  // leaf lock
  CondVar idle;
  int count ABSL_GUARDED_BY(mu) = 0;
};

// Shares `calls`: a call may end after the guard is gone.
std::shared_ptr<const void> CountOpen(const std::shared_ptr<OpenCalls>& calls) {
  {
    MutexLock lock(calls->mu);
    ++calls->count;
  }
  return {calls.get(), [calls](const void*) {
            MutexLock lock(calls->mu);
            if (--calls->count == 0) calls->idle.SignalAll();
          }};
}

}  // namespace

struct CallGuard::Impl {
  const std::vector<config::ApiKey> keys;
  const Clock& clock;
  const flags::FlagGate* gate;
  std::vector<std::string> key_headers = {};  // of the targeting key
  const std::shared_ptr<OpenCalls> calls = std::make_shared<OpenCalls>();

  // One that is unfit fulfils no rule, which is no reason to refuse the call.
  void AddFlagHeaders(const grpc::CallbackServerContext& context, CallContext& call) const {
    const auto add = [&](const std::string& name) {
      auto value = ReadHeader(context, name, kMaxHeaderBytes);
      if (value.ok() && value->has_value()) call.headers.emplace(name, **std::move(value));
    };
    for (const std::string& name : key_headers) add(name);
    if (gate == nullptr) return;
    const auto set = gate->snapshot();
    for (const std::string& name : set->header_names()) add(name);
  }

  absl::StatusOr<Caller> Authenticate(const grpc::CallbackServerContext& context) const {
    if (keys.empty()) return Caller{.admin = true};
    SLUICE_ASSIGN_OR_RETURN(const std::string_view token, BearerToken(context));
    const std::string digest = Sha256Hex(token);
    const config::ApiKey* match = nullptr;
    for (const config::ApiKey& key : keys) {  // every key, so that the time does not tell which one matched
      if (CRYPTO_memcmp(key.token_sha256.data(), digest.data(), digest.size()) == 0) match = &key;
    }
    if (match == nullptr) return MakeError(Reason::kTokenUnknown, "the bearer token is not known");
    return Caller{.authenticated = true,
                  .key_name = match->name,
                  .tenant = match->tenant,
                  .highest_class = match->highest_class,
                  .models = match->models,
                  .admin = match->admin};
  }
};

CallGuard::CallGuard(std::vector<config::ApiKey> keys, const Clock& clock, const flags::FlagGate* gate,
                     const std::vector<std::string>& targeting_key)
    : impl_(new Impl{.keys = std::move(keys), .clock = clock, .gate = gate}) {
  for (const config::ApiKey& key : impl_->keys) {
    SLUICE_CHECK(key.token_sha256.size() == 64, "config checked that token_sha256 has 64 hex digits");
  }
  for (const std::string& name : targeting_key) {
    if (name.starts_with(config::kHeaderKeyPrefix)) {
      impl_->key_headers.push_back(name.substr(config::kHeaderKeyPrefix.size()));
    }
  }
}

CallGuard::~CallGuard() = default;

absl::StatusOr<CallContext> CallGuard::Open(const grpc::CallbackServerContext& context) const {
  CallContext call;
  call.arrival = impl_->clock.Now();
  call.peer = context.peer();
  absl::StatusOr<Caller> caller = impl_->Authenticate(context);
  if (!caller.ok()) {
    Log(LogLevel::kDebug, "call refused", {{"peer", call.peer}, {"reason", ReasonOf(caller.status())}});
    return caller.status();
  }
  call.caller = *std::move(caller);
  SLUICE_ASSIGN_OR_RETURN(std::optional<std::string> id, ReadHeader(context, "x-request-id", kMaxRequestIdBytes));
  call.request_id = id.has_value() ? *std::move(id) : NewRequestId();
  for (const std::string_view name : kDoorHeaders) {
    SLUICE_ASSIGN_OR_RETURN(std::optional<std::string> value, ReadHeader(context, name, kMaxHeaderBytes));
    if (value.has_value()) call.headers.emplace(name, *std::move(value));
  }
  impl_->AddFlagHeaders(context, call);
  call.deadline = DeadlineOn(impl_->clock, context);
  call.previous_attempts = PreviousAttempts(context);
  call.open = CountOpen(impl_->calls);
  return call;
}

absl::Status CallGuard::RequireAdmin(const CallContext& call) {
  if (call.caller.admin) return absl::OkStatus();
  return MakeError(Reason::kAdminRequired, fmt::format("key '{}' is not an admin key", call.caller.key_name));
}

int CallGuard::open_calls() const {
  MutexLock lock(impl_->calls->mu);
  return impl_->calls->count;
}

bool CallGuard::WaitIdle(Duration timeout) const {
  const MonoTime until = SaturatingAdd(impl_->clock.Now(), timeout);
  OpenCalls& calls = *impl_->calls;
  MutexLock lock(calls.mu);
  while (calls.count > 0) {
    const Duration left = until - impl_->clock.Now();
    if (left <= Duration::zero() || !calls.idle.WaitFor(calls.mu, left)) break;
  }
  return calls.count == 0;
}

std::string NewRequestId() {
  unsigned char bytes[16];
  SLUICE_CHECK(RAND_bytes(bytes, sizeof bytes) == 1, "the system's random source works");
  return Hex(bytes, sizeof bytes);
}

}  // namespace sluice::services
