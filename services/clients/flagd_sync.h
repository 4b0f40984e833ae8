// Client of a flagd control plane (flagd.sync.v1): takes whole flag definitions as they change.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "flags/flagd/definitions.h"

namespace sluice::services {

struct FlagdSyncOptions {
  std::string target;       // HOST:PORT or unix:/PATH
  std::string provider_id;  // who asks, for the control plane's logs
  std::string selector;     // sent as flagd-selector: "flagSetId=..." or "source=..."; empty: none
  bool tls = false;
  std::string ca_file;                     // PEM; empty: the system's authorities
  std::string certificate_file, key_file;  // PEM, for mTLS; both or neither
  Duration initial_backoff = std::chrono::seconds(1);
  Duration max_backoff = std::chrono::seconds(30);
  Duration stale_after = std::chrono::seconds(5);     // without a stream that has delivered something
  Duration ping_interval = std::chrono::seconds(30);  // finds a peer that vanished
};

// Delay before attempt `failures` + 1 (failures from 1): doubles from initial to max, of which a random half is taken
// off (`random` in [0, 1)), so that clients of one control plane do not come back all at once.
Duration SyncBackoff(const FlagdSyncOptions& options, int failures, double random);

struct RemoteFlags {
  flags::flagd::Definitions definitions;
};

// Thread-safety: thread-safe. Reads on a thread of its own.
class FlagdSync {
 public:
  // What the control plane sent, or INVALID_ARGUMENT for a document that was refused as a whole: what was delivered
  // before stays good. Not called for a document that equals the last good one, nor for lost connections (status()).
  // Runs on the reading thread, one call at a time; it must not end the FlagdSync.
  using Callback = std::function<void(absl::StatusOr<RemoteFlags>)>;

  // Reads the files; then connects and reconnects until it ends. INVALID_ARGUMENT: no target, or unreadable files.
  // `clock` outlives it. `random` gives numbers in [0, 1) and is called on the reading thread.
  static absl::StatusOr<std::unique_ptr<FlagdSync>> Start(FlagdSyncOptions options, const Clock& clock,
                                                          std::function<double()> random, Callback callback);
  ~FlagdSync();  // ends the stream; blocks until a callback that runs has ended

  struct Status {
    bool connected = false;  // a stream is open that has delivered something
    // Not connected for `stale_after`, or never delivered anything for that long: the flags may be out of date.
    bool stale = false;
    int64_t updates = 0;     // good documents, equal ones included
    int64_t refused = 0;     // bad ones
    int64_t streams = 0;     // attempts to open one
    std::string last_error;  // of the last stream that ended, or document refused; empty: none yet
  };
  Status status() const;

 private:
  struct Impl;
  explicit FlagdSync(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::services
