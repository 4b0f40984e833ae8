// One leader among the processes that share a state store: a key that belongs to the leader's session.
//
// Whoever finds the key free puts it under its own session, by compare-and-set. It leads while the store surely keeps
// that entry, by its own clock and less a margin; so a leader that is cut off stops before anybody else can begin. What
// a leader writes it fences with the revision of that entry, so that not even a process that was paused between looking
// and writing can write as a leader of the past. Follows Chubby's sequencers (Burrows, OSDI 2006, 2.4).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "state/state_store.h"

namespace sluice::state {

// What an election knows at some moment. A value.
struct ElectionView {
  bool known = false;           // the store has told who holds the key, and can be read
  std::optional<Entry> holder;  // as last told
  std::string session;          // our own; empty: none
  MonoTime alive_until{};       // of our session
  MonoTime try_again{};         // no attempt before: the store has just failed
};
enum class ElectionStep { kNothing, kBeginSession, kCampaign };

// What is to be done now, and whether we lead.
ElectionStep NextStep(const ElectionView& view, MonoTime now);
std::optional<Fence> Leading(const ElectionView& view, Duration margin, MonoTime now);

// Thread-safety: Tick from one thread at a time; the others from any. Has no thread of its own.
class Election {
 public:
  struct Options {
    std::string key;   // "rollouts/leader"
    std::string name;  // of this process, for people; the entry's value
    Duration session_ttl = std::chrono::seconds(10);
    // Ours ends this long before the store might give our key away: for clocks that do not run alike.
    Duration margin = std::chrono::milliseconds(500);
    Duration retry = std::chrono::seconds(1);  // after an attempt that failed
    // The store has news: Tick soon. From any thread; must not block, nor use the election.
    std::function<void()> wake;
    // From Tick, when that finds that this process begins or ceases to lead, or another one leads.
    std::function<void(const std::optional<Fence>& ours, const std::string& leader)> changed;
  };
  // `store` and `clock` outlive it. Begins to watch the key, which may block as a call of the store does.
  Election(StateStore& store, Options options, const Clock& clock);
  // Gives the key away at once if it is ours. May block as a call of the store does.
  ~Election();

  // Does what is due: begins a session, campaigns. May wait for the store. Call it often (each second, say), and after
  // `wake`; a late call delays a new leader, and never keeps an old one.
  void Tick() ABSL_LOCKS_EXCLUDED(mu_);

  // Ours, while we lead: for the `fence` of what only a leader may write. Look before each write. Never blocks.
  std::optional<Fence> leader() const ABSL_LOCKS_EXCLUDED(mu_);
  // Who leads as far as this process knows, empty: nobody. For people, never for decisions.
  std::string leader_name() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Follow(const absl::StatusOr<Changes>& changes) ABSL_LOCKS_EXCLUDED(mu_);
  ElectionView View() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Settle(ElectionStep step, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void TellChange() ABSL_LOCKS_EXCLUDED(mu_);

  StateStore& store_;
  const Options options_;
  const Clock& clock_;
  std::optional<Fence> told_fence_;                      // Tick's thread
  std::string told_leader_;                              // likewise
  absl::StatusCode told_fault_ = absl::StatusCode::kOk;  // likewise, for the log

  mutable Mutex mu_;  // a leaf; not held over calls of the store
  bool known_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<Entry> holder_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Session> session_ ABSL_GUARDED_BY(mu_);  // changed by Tick alone
  MonoTime try_again_ ABSL_GUARDED_BY(mu_) = MonoTime::min();
  std::unique_ptr<Subscription> subscription_;  // last: its callback uses the others
};

}  // namespace sluice::state
