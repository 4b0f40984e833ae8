#include "loadtest/event_loop.h"

#include <algorithm>

namespace sluice::loadtest {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(10);

}  // namespace

void EventLoop::Post(std::function<void()> work) {
  MutexLock lock(mutex_);
  posted_.push_back(std::move(work));
  wake_.Signal();
}

void EventLoop::At(MonoTime when, std::function<void()> work) {
  MutexLock lock(mutex_);
  timers_.push({when, order_++, std::move(work)});
  wake_.Signal();
}

void EventLoop::RunDue(MonoTime now) {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      if (timers_.empty() || timers_.top().when > now) return;
      lags_ms_.push_back(ToMillis(now - timers_.top().when));
      work = timers_.top().work;
      timers_.pop();
    }
    work();
    now = clock_.Now();
  }
}

void EventLoop::Clear() {
  MutexLock lock(mutex_);
  timers_ = {};
  posted_.clear();
}

void EventLoop::Run(const std::function<bool()>& finished) {
  MonoTime tick = clock_.Now() + kTick;
  while (!finished()) {
    std::deque<std::function<void()>> posted;
    {
      MutexLock lock(mutex_);
      if (posted_.empty()) {
        const MonoTime next = timers_.empty() ? tick : std::min(tick, timers_.top().when);
        const MonoTime now = clock_.Now();
        if (next > now) wake_.WaitFor(mutex_, next - now);
      }
      posted.swap(posted_);
    }
    if (const MonoTime now = clock_.Now(); now >= tick) {
      lags_ms_.push_back(ToMillis(now - tick));
      tick = now + kTick;
    }
    for (auto& work : posted) work();
    RunDue(clock_.Now());
  }
}

}  // namespace sluice::loadtest
