// One server under test, behind one protocol. Implementations: native_target (Sluice's gRPC), kserve_target (KServe v2
// / Triton gRPC), openai_target (HTTP).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "loadtest/record.h"

namespace sluice::loadtest {

class EventLoop;

// What to send. Exactly one of prompt, chat and token_ids is set.
struct Request {
  std::string id;
  std::string prompt;
  std::vector<std::pair<std::string, std::string>> chat;  // role, content
  std::vector<int> token_ids;
  int max_tokens = 16;
  double temperature = 0;
  uint64_t seed = 0;
  bool ignore_eos = true;
  std::string tenant, user, conversation, priority_class;
  Duration timeout = std::chrono::seconds(60);
  int cancel_after_messages = 0;  // cancel once so many messages with text have come; 0: never
  Duration read_delay{0};         // slow reader: pause so long after each message
  bool keep_text = false;
};

struct TargetOptions {
  std::string url;                             // grpc://HOST:PORT, grpcs://, kserve://, kserves://, http://, https://
  std::string model;                           // empty: the server's default, or the only one
  std::string token;                           // bearer
  std::string ca_file;                         // PEM, for TLS
  std::map<std::string, std::string> headers;  // metadata of every request
  std::string body_json;                       // openai: an object merged into every request body
  int connections = 4;                         // gRPC channels
};

// Thread-safe.
class Target {
 public:
  virtual ~Target() = default;  // waits for what runs; call CancelAll first to be quick

  // Never blocks. Writes sent_ns and everything after it into `record` from its own threads, then calls `done` exactly
  // once and touches `record` no more. A planned cancel ends with kCancelled.
  virtual void Start(Request request, Record* record, std::function<void()> done) = 0;
  virtual void CancelAll() = 0;
  // Blocks up to `timeout`; CANCELLED within about a second of `stop`. UNAVAILABLE: nobody listens (said at once), or
  // it does not get ready; UNAUTHENTICATED, PERMISSION_DENIED; NOT_FOUND: no such model (names those that exist); the
  // message says what to do.
  virtual absl::Status Check(Duration timeout, const std::atomic<bool>& stop) = 0;
};

// `loop` (for slow readers) and `clock` outlive the target; times are relative to `epoch`.
// INVALID_ARGUMENT: a URL that is none, naming the schemes.
absl::StatusOr<std::unique_ptr<Target>> MakeTarget(const TargetOptions& options, EventLoop& loop, const Clock& clock,
                                                   MonoTime epoch);

}  // namespace sluice::loadtest
