#include "qos/admission.h"

#include <map>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "tests/qos/admission_fixture.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::StatusIs;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using AdmissionTest = AdmissionFixture;

TEST_F(AdmissionTest, AdmitsAtOnceUpToTheLimit) {
  Admission& admission = Start({.max_concurrent = 2, .max_queue = 10});
  EXPECT_EQ(Admit("a", QosClass::kBatch), 0u);
  EXPECT_EQ(Admit("b", QosClass::kSystem), 0u);
  EXPECT_NE(Admit("c", QosClass::kSystem), 0u);
  EXPECT_EQ(admission.running(), 2);
  EXPECT_EQ(admission.queued(), 1);
  EXPECT_THAT(answered_, ElementsAre("a", "b"));
  EXPECT_EQ(ExplainAdmitted(permits_.at("a")), "admitted;class=batch;queue_ms=0");
  Settle("a");
  EXPECT_THAT(answered_, ElementsAre("a", "b", "c"));
}

TEST_F(AdmissionTest, ClassesInOrderFifoInside) {
  StartBusy();
  Admit("batch1", QosClass::kBatch);
  Admit("standard1", QosClass::kStandard);
  Admit("interactive1", QosClass::kInteractive);
  Admit("standard2", QosClass::kStandard);
  Admit("system1", QosClass::kSystem);
  Admit("interactive2", QosClass::kInteractive);
  EXPECT_THAT(RunAll(),
              ElementsAre("running", "system1", "interactive1", "interactive2", "standard1", "standard2", "batch1"));
}

TEST_F(AdmissionTest, QueueWaitIsMeasured) {
  StartBusy();
  Admit("waits", QosClass::kInteractive);
  clock_.Advance(milliseconds(1234));
  Settle("running");
  EXPECT_EQ(permits_.at("waits").queue_wait(), milliseconds(1234));
  EXPECT_EQ(ExplainAdmitted(permits_.at("waits")), "admitted;class=interactive;queue_ms=1234");
}

TEST_F(AdmissionTest, StarvationPromotes) {
  StartBusy(10, seconds(5));
  Admit("batch", QosClass::kBatch);
  clock_.Advance(seconds(10));
  Admit("interactive", QosClass::kInteractive);  // batch counts as interactive now, and came first
  Admit("system", QosClass::kSystem);
  EXPECT_THAT(RunAll(), ElementsAre("running", "system", "batch", "interactive"));
}

// A flood of interactive requests, one served each second: batch gets its turn after three promotions at the latest.
TEST_F(AdmissionTest, AFloodDoesNotStarveBatch) {
  StartBusy(100, seconds(5));
  Admit("batch", QosClass::kBatch);
  int second = 0;
  for (; permits_.count("batch") == 0 && second < 60; ++second) {
    Admit(fmt::format("flood{}a", second), QosClass::kInteractive);
    Admit(fmt::format("flood{}b", second), QosClass::kInteractive);
    clock_.Advance(seconds(1));
    Settle(permits_.begin()->first);
  }
  EXPECT_GE(second, 10);
  EXPECT_LE(second, 16);
}

TEST_F(AdmissionTest, FullQueueRefusesTheNewcomer) {
  StartBusy(2);
  Admit("a", QosClass::kStandard);
  Admit("b", QosClass::kInteractive);
  EXPECT_EQ(Admit("c", QosClass::kStandard), 0u) << "not more urgent than a";
  ASSERT_EQ(refusals_.count("c"), 1u);
  EXPECT_THAT(refusals_["c"], StatusIs(absl::StatusCode::kResourceExhausted,
                                       "queue full: 1 of 1 permits in use, 2 of 2 queue places taken"));
  EXPECT_EQ(ExplainRejected(refusals_["c"]), "rejected;reason=QUEUE_FULL");
  const ErrorDetails details = GetErrorDetails(refusals_["c"]);
  EXPECT_EQ(details.retry_after, seconds(3)) << "nothing measured yet: 1 s for each of the two and itself";
  EXPECT_EQ(details.metadata.at("queued_requests"), "2");
  EXPECT_EQ(details.metadata.at("max_running_requests"), "1");
  EXPECT_EQ(admission_->queued(), 2);
}

TEST_F(AdmissionTest, FullQueueEvictsTheLeastUrgent) {
  StartBusy(3);
  Admit("batch1", QosClass::kBatch);
  Admit("batch2", QosClass::kBatch);
  Admit("standard", QosClass::kStandard);
  EXPECT_NE(Admit("interactive", QosClass::kInteractive), 0u);
  ASSERT_EQ(refusals_.size(), 1u);
  EXPECT_THAT(refusals_["batch2"],
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "queue full, batch request gave way to interactive: 1 of 1 permits in use, 3 of 3 queue places "
                       "taken"));
  EXPECT_EQ(ReasonOf(refusals_["batch2"]), "QUEUE_FULL");
  EXPECT_EQ(Value("sluice_qos_admissions_total", {"batch", "QUEUE_FULL"}), 1);
  EXPECT_THAT(RunAll(), ElementsAre("running", "interactive", "standard", "batch1"));
}

TEST_F(AdmissionTest, ExpiredRequestsMakeRoomFirst) {
  StartBusy(1);
  Admit("old", QosClass::kSystem, clock_.Now() + seconds(1));
  clock_.Advance(seconds(2));
  EXPECT_NE(Admit("new", QosClass::kBatch), 0u);
  EXPECT_EQ(ReasonOf(refusals_["old"]), "DEADLINE_IN_QUEUE");
}

TEST_F(AdmissionTest, NoQueueAtAll) {
  StartBusy(0);
  EXPECT_EQ(Admit("system", QosClass::kSystem), 0u);
  EXPECT_EQ(ReasonOf(refusals_["system"]), "QUEUE_FULL");
}

TEST_F(AdmissionTest, RetryAfterFollowsTheServiceRate) {
  StartBusy(4);
  clock_.Advance(seconds(8));
  Settle("running");  // measured: 8 s
  for (const char* name : {"a", "b", "c", "d", "e"}) Admit(name, QosClass::kStandard);
  EXPECT_THAT(answered_, ElementsAre("running", "a"));
  Admit("refused", QosClass::kStandard);
  EXPECT_EQ(GetErrorDetails(refusals_["refused"]).retry_after, seconds(30)) << "8 s x 5, clamped";

  for (const char* name : {"a", "b"}) {  // quick ones: the average sinks to 8 x 0.8 x 0.8 s
    Settle(name);
  }
  Admit("x", QosClass::kStandard);
  Admit("y", QosClass::kStandard);
  Admit("refused2", QosClass::kStandard);
  EXPECT_NEAR(ToMillis(*GetErrorDetails(refusals_["refused2"]).retry_after), 5 * 5120, 1);
}

TEST_F(AdmissionTest, QueueTimeout) {
  Start({.max_concurrent = 1, .max_queue = 5, .queue_timeout = seconds(3), .default_deadline = Duration::zero()});
  Admit("running", QosClass::kStandard);
  Admit("waits", QosClass::kStandard);
  clock_.Advance(seconds(3) - Duration(1));
  admission_->Tick();
  EXPECT_THAT(refusals_, IsEmpty());
  clock_.Advance(Duration(1));
  admission_->Tick();
  EXPECT_THAT(refusals_["waits"], StatusIs(absl::StatusCode::kResourceExhausted,
                                           "waited 3000 ms in the queue, the limit is 3000 ms: 1 of 1 permits in use, "
                                           "1 of 5 queue places taken"));
  EXPECT_EQ(ReasonOf(refusals_["waits"]), "QUEUE_TIMEOUT");
  EXPECT_TRUE(GetErrorDetails(refusals_["waits"]).retry_after.has_value());
  EXPECT_EQ(admission_->queued(), 0);
}

TEST_F(AdmissionTest, DeadlineInTheQueue) {
  StartBusy();
  Admit("short", QosClass::kSystem, clock_.Now() + milliseconds(500));
  Admit("long", QosClass::kBatch, clock_.Now() + seconds(20));
  clock_.Advance(milliseconds(500));
  admission_->Tick();
  EXPECT_THAT(refusals_["short"],
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("deadline passed after 500 ms in the queue")));
  EXPECT_EQ(ExplainRejected(refusals_["short"]), "rejected;reason=DEADLINE_IN_QUEUE");
  EXPECT_FALSE(GetErrorDetails(refusals_["short"]).retry_after.has_value());
  EXPECT_EQ(admission_->queued(), 1);
}

TEST_F(AdmissionTest, AWaitThatMissesTheTtftObjectiveEndsUnlessOnlyWatched) {
  for (const Feasibility feasibility : {Feasibility::kEnforce, Feasibility::kDryRun, Feasibility::kOff}) {
    Start({.max_concurrent = 1, .max_queue = 5, .feasibility = feasibility});
    Admit("running", QosClass::kStandard);
    Admit("hurried", Request{.ttft_objective = seconds(2)});
    clock_.Advance(seconds(2));
    admission_->Tick();
    const bool ends = feasibility == Feasibility::kEnforce;
    EXPECT_EQ(admission_->queued(), ends ? 0 : 1);
    TearDown();
    if (!ends) continue;
    EXPECT_EQ(ReasonOf(refusals_["hurried"]), "TTFT_UNREACHABLE");
    EXPECT_THAT(refusals_["hurried"], StatusIs(absl::StatusCode::kResourceExhausted,
                                               HasSubstr("its first token was wanted by now, after 2000 ms")));
    EXPECT_TRUE(GetErrorDetails(refusals_["hurried"]).retry_after.has_value());
  }
}

TEST_F(AdmissionTest, EachWaitingRequestExpiresInItsOwnTime) {
  StartBusy();
  for (const int s : {3, 1, 4, 2}) Admit(fmt::format("{} s", s), QosClass::kStandard, clock_.Now() + seconds(s));
  for (int second = 1; second <= 4; ++second) {
    clock_.Advance(seconds(1));
    admission_->Tick();
    EXPECT_EQ(answered_.back(), fmt::format("{} s", second));
    EXPECT_EQ(admission_->queued(), 4 - second);
  }
}

TEST_F(AdmissionTest, ExpiredWorkIsNeverGrantedEvenWithoutATick) {
  StartBusy();
  Admit("short", QosClass::kSystem, clock_.Now() + milliseconds(500));
  Admit("long", QosClass::kBatch);
  clock_.Advance(seconds(1));
  Settle("running");
  EXPECT_EQ(ReasonOf(refusals_["short"]), "DEADLINE_IN_QUEUE");
  EXPECT_EQ(permits_.count("long"), 1u) << "the permit went on to the next";
}

TEST_F(AdmissionTest, DeadlinePassedOnArrival) {
  Start({});
  EXPECT_EQ(Admit("late", QosClass::kSystem, clock_.Now()), 0u);
  EXPECT_THAT(refusals_["late"],
              StatusIs(absl::StatusCode::kDeadlineExceeded, "deadline passed 0 ms before admission"));
}

TEST_F(AdmissionTest, DefaultDeadlineCountsFromArrival) {
  Start({.max_concurrent = 1, .max_queue = 5, .queue_timeout = seconds(60), .default_deadline = seconds(10)});
  Admit("running", QosClass::kStandard);
  const auto admit = [&](const std::string& name, MonoTime arrival) {
    admission_->Admit({.request_id = name, .arrival = arrival}, nullptr,
                      [this, name](Answer answer) { refusals_[name] = answer.status(); });
  };
  admit("earlier", clock_.Now() - seconds(4));
  admit("unset", MonoTime{});
  clock_.Advance(seconds(6));
  admission_->Tick();
  EXPECT_EQ(ReasonOf(refusals_["earlier"]), "DEADLINE_IN_QUEUE");
  EXPECT_EQ(refusals_.count("unset"), 0u);
  clock_.Advance(seconds(4));
  admission_->Tick();
  EXPECT_EQ(ReasonOf(refusals_["unset"]), "DEADLINE_IN_QUEUE");
}

TEST_F(AdmissionTest, CancelWhileWaiting) {
  StartBusy();
  const uint64_t ticket = Admit("leaves", QosClass::kStandard);
  Admit("stays", QosClass::kStandard);
  clock_.Advance(milliseconds(70));
  admission_->Cancel(ticket);
  EXPECT_THAT(refusals_["leaves"], StatusIs(absl::StatusCode::kCancelled, "the client left after 70 ms in the queue"));
  EXPECT_EQ(ReasonOf(refusals_["leaves"]), "CLIENT_CANCELLED");
  admission_->Cancel(ticket);
  admission_->Cancel(0);
  admission_->Cancel(12345);
  EXPECT_THAT(answered_, ElementsAre("running", "leaves")) << "answered once";
  Settle("running");
  admission_->Cancel(ticket + 1);  // "stays" has its permit: too late
  EXPECT_EQ(permits_.count("stays"), 1u);
}

TEST_F(AdmissionTest, Drain) {
  StartBusy();
  Admit("waits1", QosClass::kBatch);
  Admit("waits2", QosClass::kSystem);
  admission_->StartDrain(seconds(7));
  Admit("late", QosClass::kSystem);
  for (const char* name : {"waits1", "waits2", "late"}) {
    EXPECT_THAT(refusals_[name], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("1 still run"))) << name;
    EXPECT_EQ(ReasonOf(refusals_[name]), "DRAINING");
    EXPECT_EQ(GetErrorDetails(refusals_[name]).retry_after, seconds(7));
  }
  EXPECT_EQ(admission_->running(), 1) << "what runs finishes";
  Settle("running");
  EXPECT_EQ(admission_->running(), 0);
}

TEST_F(AdmissionTest, DestructionAnswersWhatWaits) {
  Start({.max_concurrent = 1, .max_queue = 5});
  std::optional<Permit> held;
  admission_->Admit({}, nullptr, [&](Answer answer) { held = *std::move(answer); });
  Admit("waits", QosClass::kStandard, kInfiniteFuture);
  // The answer arrives while the admission goes; it gives back the last permit.
  admission_->Admit({}, nullptr, [&](Answer) { held.reset(); });
  admission_.reset();
  EXPECT_EQ(ReasonOf(refusals_["waits"]), "DRAINING");
}

TEST_F(AdmissionTest, PermitSettlesOnce) {
  Start({.max_concurrent = 3});
  Admit("a", QosClass::kStandard);
  Admit("b", QosClass::kStandard);
  Permit& a = permits_.at("a");
  a.Settle(Outcome::kCancelled);
  a.Settle(Outcome::kSuccess);
  EXPECT_EQ(admission_->running(), 1);
  Permit moved = std::move(permits_.at("b"));
  permits_.clear();
  EXPECT_EQ(admission_->running(), 1) << "the moved-from permit settled nothing";
  Admit("c", QosClass::kBatch);
  moved = std::move(permits_.at("c"));
  EXPECT_EQ(admission_->running(), 1) << "the overwritten permit failed";
  { const Permit dropped = std::move(moved); }
  EXPECT_EQ(admission_->running(), 0);
  EXPECT_EQ(Value("sluice_qos_settlements_total", {"standard", "cancelled"}), 1);
  EXPECT_EQ(Value("sluice_qos_settlements_total", {"standard", "failure"}), 1);
  EXPECT_EQ(Value("sluice_qos_settlements_total", {"batch", "failure"}), 1);
}

// A callback that throws its permit away frees the place for the next, thousands deep, on a flat stack.
TEST_F(AdmissionTest, ThrownAwayPermitsPassOnWithoutRecursion) {
  constexpr int kWaiting = 100000;
  StartBusy(kWaiting);
  int answered = 0, inside = 0, deepest = 0;
  for (int i = 0; i < kWaiting; ++i) {
    admission_->Admit({}, nullptr, [&](Answer answer) {
      deepest = std::max(deepest, ++inside);
      EXPECT_TRUE(answer.ok());
      answer->Settle(Outcome::kSuccess);
      ++answered;
      --inside;
    });
  }
  Settle("running");
  EXPECT_EQ(answered, kWaiting);
  EXPECT_EQ(deepest, 1);
  EXPECT_EQ(admission_->running(), 0);
  EXPECT_EQ(admission_->queued(), 0);
}

TEST_F(AdmissionTest, CallbacksMayUseTheAdmission) {
  Admission& admission = StartBusy(2);
  uint64_t other = 0;
  admission.Admit({}, nullptr, [&](Answer answer) {
    answer->Settle(Outcome::kSuccess);
    admission.Cancel(other);
    admission.Tick();
    Admit("from inside", QosClass::kStandard);
    answered_.push_back("callback ends");
  });
  other = Admit("other", QosClass::kBatch);
  answered_.clear();
  Settle("running");
  // "other" was granted by the settling inside, so the cancel came too late; its answer follows the callback.
  EXPECT_THAT(answered_, ElementsAre("callback ends", "other"));
  EXPECT_EQ(admission.queued(), 1);
  Settle("other");
  EXPECT_EQ(permits_.count("from inside"), 1u);
}

TEST_F(AdmissionTest, Metrics) {
  StartBusy(1);
  Admit("waits", QosClass::kBatch);
  EXPECT_EQ(Value("sluice_qos_running", {}), 1);
  EXPECT_EQ(Value("sluice_qos_queued", {"batch"}), 1);
  Admit("refused", QosClass::kBatch);
  Settle("running");
  EXPECT_EQ(Value("sluice_qos_queued", {"batch"}), 0);
  EXPECT_EQ(Value("sluice_qos_running", {}), 1);
  Settle("waits");
  EXPECT_EQ(Value("sluice_qos_running", {}), 0);
  EXPECT_EQ(Value("sluice_qos_admissions_total", {"standard", "admitted"}), 1);
  EXPECT_EQ(Value("sluice_qos_admissions_total", {"batch", "admitted"}), 1);
  EXPECT_EQ(Value("sluice_qos_admissions_total", {"batch", "QUEUE_FULL"}), 1);
  EXPECT_EQ(Value("sluice_qos_queue_wait_seconds", {"batch"}), 1);
  EXPECT_EQ(Value("sluice_qos_settlements_total", {"batch", "success"}), 1);
}

}  // namespace
}  // namespace sluice::qos
