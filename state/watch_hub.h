// The watches of a store that has its whole content at hand: each learns the difference to what it was told last.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "state/state_store.h"
#include "state/table.h"

namespace sluice::state {

// Thread-safety: thread-safe. Callbacks run inside Add and Notify, one at a time.
class WatchHub {
 public:
  // `load` gives the store's present content; it is called by Add and Notify and must not call the hub.
  using Load = std::function<absl::StatusOr<std::shared_ptr<const Table>>()>;
  explicit WatchHub(Load load);
  ~WatchHub();

  std::unique_ptr<Subscription> Add(std::string_view prefix, WatchCallback callback);
  void Notify();

 private:
  struct Watcher;
  struct Watchers;
  class Handle;
  const Load load_;
  const std::shared_ptr<Watchers> watchers_;  // shared with the handles
};

}  // namespace sluice::state
