// Races: many threads admit, settle, cancel, tick, move limits and drain at once. Every request is answered exactly
// once and every permit comes back. Most telling under ThreadSanitizer.
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "qos/admission.h"
#include "tests/support/manual_clock.h"

namespace sluice::qos {
namespace {

// Permits that wait for a thread to settle them.
class Held {
 public:
  void Put(Permit permit) {
    MutexLock lock(mu_);
    permits_.push_back(std::move(permit));
  }
  std::optional<Permit> Get() {
    MutexLock lock(mu_);
    if (permits_.empty()) return std::nullopt;
    std::optional<Permit> out = std::move(permits_.back());
    permits_.pop_back();
    return out;
  }

 private:
  Mutex mu_;
  std::vector<Permit> permits_ ABSL_GUARDED_BY(mu_);
};

TEST(AdmissionStressTest, EveryRequestIsAnsweredOnceAndNoPermitLeaks) {
  constexpr int kThreads = 8, kRequests = 3000, kLimit = 4;
  constexpr uint32_t kSeed = 4711;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  test::ManualClock clock;
  MetricsRegistry metrics;
  Admission admission({.max_concurrent = kLimit,
                       .max_queue = 16,
                       .queue_timeout = std::chrono::milliseconds(40),
                       .starvation_after = std::chrono::milliseconds(10)},
                      clock, metrics);
  Held held;
  std::vector<std::atomic<int>> answers(kThreads * kRequests);
  std::atomic<int> granted{0}, most{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(kSeed + static_cast<uint32_t>(t));
      for (int i = 0; i < kRequests; ++i) {
        const size_t id = static_cast<size_t>(t * kRequests + i);
        const uint32_t fate = random();
        const uint64_t ticket = admission.Admit(
            {.qos_class = static_cast<QosClass>(random() % kQosClassCount)}, nullptr, [&, id, fate](Answer answer) {
              ++answers[id];
              if (!answer.ok()) return;
              const int now = ++granted;
              for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
              }
              --granted;
              if (fate % 3 == 0) return;                                    // thrown away
              if (fate % 3 == 1) return answer->Settle(Outcome::kSuccess);  // settled inside
              held.Put(*std::move(answer));
            });
        if (random() % 4 == 0) admission.Cancel(ticket);
        if (random() % 8 == 0) clock.Advance(std::chrono::milliseconds(1));
        if (random() % 8 == 0) admission.Tick();
        if (random() % 16 == 0) admission.SetConcurrency(static_cast<int>(random() % (kLimit + 2)));
        if (random() % 16 == 0) admission.SetClassCaps({kLimit, kLimit, 2, static_cast<int>(random() % 3)});
        if (auto permit = held.Get()) permit->Settle(Outcome::kSuccess);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  admission.SetClassCaps({kLimit, kLimit, kLimit, kLimit});
  while (auto permit = held.Get()) permit.reset();
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(admission.running(), 0);
  EXPECT_EQ(admission.queued(), 0);
  for (size_t id = 0; id < answers.size(); ++id) ASSERT_EQ(answers[id], 1) << "request " << id;
}

// A grant and a cancel meet: exactly one of them answers.
TEST(AdmissionStressTest, CancelRacesWithGrant) {
  test::ManualClock clock;
  MetricsRegistry metrics;
  Admission admission({.max_concurrent = 1}, clock, metrics);
  int cancelled = 0;
  for (int round = 0; round < 300; ++round) {
    std::optional<Permit> running;
    admission.Admit({}, nullptr, [&](Answer answer) { running = *std::move(answer); });
    std::atomic<int> answers{0}, refused{0};
    const uint64_t ticket = admission.Admit({}, nullptr, [&](Answer answer) {
      ++answers;
      refused += !answer.ok();
    });
    ASSERT_NE(ticket, 0u);
    std::atomic<int> ready{0};
    const auto meet = [&] {
      ++ready;
      while (ready < 2) std::this_thread::yield();
    };
    std::thread canceller([&] {
      meet();
      admission.Cancel(ticket);
    });
    meet();
    running.reset();
    canceller.join();
    ASSERT_EQ(answers, 1);
    ASSERT_EQ(admission.running(), 0);
    cancelled += refused;
  }
  RecordProperty("cancelled", cancelled);
}

TEST(AdmissionStressTest, DrainRacesWithAdmission) {
  test::ManualClock clock;
  for (int round = 0; round < 50; ++round) {
    MetricsRegistry metrics;
    Admission admission({.max_concurrent = 2, .max_queue = 8}, clock, metrics);
    Held held;
    std::atomic<int> answers{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) {
          admission.Admit({}, nullptr, [&](Answer answer) {
            ++answers;
            if (answer.ok()) held.Put(*std::move(answer));
          });
          if (auto permit = held.Get()) permit->Settle(Outcome::kSuccess);
        }
      });
    }
    admission.StartDrain(std::chrono::seconds(1));
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(answers, 200) << "nothing waits in a draining server";
    while (auto permit = held.Get()) permit.reset();
    EXPECT_EQ(admission.running(), 0);
  }
}

}  // namespace
}  // namespace sluice::qos
