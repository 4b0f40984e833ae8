#include "state/watch_hub.h"

#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace sluice::state {

struct WatchHub::Watcher {
  void Tell(const absl::StatusOr<std::shared_ptr<const Table>>& now) {
    if (!now.ok()) {
      if (now.status() == fault) return;
      fault = now.status();
      callback(fault);
    } else if (!fault.ok() || told == nullptr || told != *now) {
      const Changes changes = Difference(told.get(), **now, prefix);
      const bool news = told == nullptr || !fault.ok() || !changes.put.empty() || !changes.deleted.empty();
      fault = absl::OkStatus();
      told = *now;
      if (news) callback(changes);
    }
  }

  const std::string prefix;
  const WatchCallback callback;
  std::shared_ptr<const Table> told = nullptr;
  absl::Status fault = {};
};

struct WatchHub::Watchers {
  Mutex mu;  // held while callbacks run: one at a time, and none after its handle is gone
  std::vector<std::shared_ptr<Watcher>> all ABSL_GUARDED_BY(mu);
};

class WatchHub::Handle final : public Subscription {
 public:
  Handle(std::shared_ptr<Watchers> watchers, std::shared_ptr<Watcher> watcher)
      : watchers_(std::move(watchers)), watcher_(std::move(watcher)) {}
  ~Handle() override {
    MutexLock lock(watchers_->mu);
    std::erase(watchers_->all, watcher_);
  }

 private:
  const std::shared_ptr<Watchers> watchers_;
  const std::shared_ptr<Watcher> watcher_;
};

WatchHub::WatchHub(Load load) : load_(std::move(load)), watchers_(std::make_shared<Watchers>()) {}
WatchHub::~WatchHub() = default;

std::unique_ptr<Subscription> WatchHub::Add(std::string_view prefix, WatchCallback callback) {
  auto watcher = std::make_shared<Watcher>(Watcher{.prefix = std::string(prefix), .callback = std::move(callback)});
  MutexLock lock(watchers_->mu);
  watcher->Tell(load_());
  watchers_->all.push_back(watcher);
  return std::make_unique<Handle>(watchers_, std::move(watcher));
}

void WatchHub::Notify() {
  MutexLock lock(watchers_->mu);
  if (watchers_->all.empty()) return;
  const auto now = load_();
  for (const auto& watcher : watchers_->all) watcher->Tell(now);
}

}  // namespace sluice::state
