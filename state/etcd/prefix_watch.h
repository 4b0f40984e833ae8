// A watch in etcd: a thread that reads a stream of events, and lists anew whenever that ended.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "state/etcd/connection.h"
#include "state/etcd/encoding.h"
#include "state/etcd/stopper.h"
#include "state/state_store.h"

namespace sluice::state::etcd {

// What begins with `prefix` behind the connection's own prefix, all of one moment. Blocks for at most its timeout.
absl::StatusOr<Listing> ListPrefix(Connection& connection, std::string_view prefix, Stopper* stopper);

// Whatever ends a stream (a lost connection, a member that stops, a compaction), the next listing holds what was missed
// and the difference to what was told is told; so no change is lost, and none is told twice.
class PrefixWatch {
 public:
  // Calls back once, then starts its thread. See StateStore::Watch.
  PrefixWatch(std::shared_ptr<Connection> connection, std::string_view prefix, WatchCallback callback);
  ~PrefixWatch() { Stop(); }
  // Ends the thread; no call back afterwards. Again: nothing happens. From one thread at a time.
  void Stop();

 private:
  void Run();
  bool List();
  // Until the stream ends; true: it has begun to follow.
  bool Follow();
  void Take(const etcdserverpb::WatchResponse& response);
  void Tell(absl::Status fault);

  const std::shared_ptr<Connection> connection_;
  const std::string prefix_;  // without the connection's
  const WatchCallback callback_;
  Mirror mirror_;                          // the thread's, after the constructor
  std::vector<mvccpb::Event> incomplete_;  // likewise: of a response that was split
  absl::Status fault_;                     // likewise: as told
  bool first_ = true;                      // likewise
  Stopper stopper_;
  std::thread thread_;
};

}  // namespace sluice::state::etcd
