// Limits of a class, predictions, limits that move, order by work.
#include <limits>

#include "fmt/format.h"
#include "tests/qos/admission_fixture.h"
#include "tests/support/status_matchers.h"

namespace sluice::qos {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using test::IsOk;
using test::StatusIs;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr auto kBatch = static_cast<size_t>(QosClass::kBatch);
constexpr int kNoCap = std::numeric_limits<int>::max();

class AdmissionLimitsTest : public AdmissionFixture {
 protected:
  // One permit, taken; the limits of batch.
  void StartWithBatch(const ClassLimits& batch) {
    AdmissionOptions options{.max_concurrent = 1};
    options.classes[kBatch] = batch;
    Start(options);
    Admit("running", QosClass::kStandard);
  }
  Request Batch(int tokens, size_t bytes = 0) {
    return {.qos_class = QosClass::kBatch, .prompt_tokens = tokens - 10, .max_tokens = 10, .prompt_bytes = bytes};
  }
};

TEST_F(AdmissionLimitsTest, RequestsOfAClass) {
  StartWithBatch({.max_queue = 1});
  Admit("a", QosClass::kBatch);
  Admit("b", QosClass::kBatch);
  Admit("c", QosClass::kStandard);
  EXPECT_THAT(refusals_["b"], StatusIs(StatusCode::kResourceExhausted,
                                       "queue of class batch full, 1 of 1 requests taken: 1 of 1 permits in use, 1 of "
                                       "256 queue places taken"));
  EXPECT_EQ(ReasonOf(refusals_["b"]), "QUEUE_FULL");
  EXPECT_TRUE(GetErrorDetails(refusals_["b"]).retry_after.has_value());
  EXPECT_EQ(refusals_.count("c"), 0u);
}

TEST_F(AdmissionLimitsTest, TokensOfAClass) {
  StartWithBatch({.max_queued_tokens = 1000});
  Admit("huge, but alone", Batch(5000));
  Admit("small", Batch(11));
  EXPECT_THAT(refusals_["small"], StatusIs(StatusCode::kResourceExhausted,
                                           "queue of class batch full, 5000 of 1000 tokens taken: 1 of 1 permits in "
                                           "use, 1 of 256 queue places taken"));
  Settle("running");
  Admit("400", Batch(400));
  Admit("600", Batch(600));
  Admit("1", Batch(11));
  EXPECT_EQ(admission_->queued(), 2);
  EXPECT_EQ(refusals_.count("1"), 1u);
  EXPECT_EQ(Value("sluice_qos_queued_tokens", {"batch"}), 1000);
  Settle("huge, but alone");
  EXPECT_EQ(Value("sluice_qos_queued_tokens", {"batch"}), 600);
}

TEST_F(AdmissionLimitsTest, CachedPromptTokensCostNothing) {
  StartWithBatch({.max_queued_tokens = 100});
  Admit("a", Batch(60));
  Request cached = Batch(60);
  cached.cached_prompt_tokens = 20;
  Admit("b", cached);
  EXPECT_THAT(refusals_, IsEmpty());
}

TEST_F(AdmissionLimitsTest, BytesOfAClass) {
  StartWithBatch({.max_queued_bytes = 1000});
  Admit("a", Batch(20, 999));
  Admit("b", Batch(20, 2));
  EXPECT_THAT(refusals_["b"], StatusIs(StatusCode::kResourceExhausted,
                                       "queue of class batch full, 999 of 1000 bytes taken: 1 of 1 permits in use, 1 "
                                       "of 256 queue places taken"));
}

TEST_F(AdmissionLimitsTest, ExpiredRequestsMakeRoomInTheirClass) {
  StartWithBatch({.max_queue = 1, .queue_timeout = seconds(2)});
  Admit("old", QosClass::kBatch);
  clock_.Advance(seconds(3));
  EXPECT_NE(Admit("new", QosClass::kBatch), 0u);
  EXPECT_THAT(refusals_["old"], StatusIs(StatusCode::kResourceExhausted,
                                         "waited 3000 ms in the queue, the limit is 2000 ms: 1 of 1 permits in use, 1 "
                                         "of 256 queue places taken"));
}

TEST_F(AdmissionLimitsTest, EachClassHasItsTimeout) {
  StartWithBatch({.queue_timeout = seconds(2)});
  Admit("batch", QosClass::kBatch);
  Admit("standard", QosClass::kStandard);
  clock_.Advance(seconds(2));
  admission_->Tick();
  EXPECT_EQ(admission_->queued(), 1);
  EXPECT_EQ(ReasonOf(refusals_["batch"]), "QUEUE_TIMEOUT");
}

TEST_F(AdmissionLimitsTest, CapsOfClasses) {
  Start({.max_concurrent = 3});
  admission_->SetClassCaps({kNoCap, kNoCap, kNoCap, 1});
  for (const char* name : {"b1", "b2", "b3"}) Admit(name, QosClass::kBatch);
  Admit("s1", QosClass::kStandard);
  EXPECT_THAT(answered_, ElementsAre("b1", "s1")) << "a capped class waits, others pass it";
  Settle("s1");
  EXPECT_EQ(admission_->running(), 1);
  Settle("b1");
  EXPECT_THAT(answered_, ElementsAre("b1", "s1", "b2"));
  admission_->SetClassCaps({kNoCap, kNoCap, kNoCap, 2});
  EXPECT_THAT(answered_, ElementsAre("b1", "s1", "b2", "b3")) << "raising a cap lets waiting ones in";
  admission_->SetClassCaps({kNoCap, kNoCap, kNoCap, 0});
  Admit("b4", QosClass::kBatch);
  EXPECT_EQ(admission_->running(), 2) << "lowering revokes nothing";
  EXPECT_EQ(admission_->load().running_by_class[kBatch], 2);
  Settle("b2");
  Settle("b3");
  EXPECT_EQ(permits_.size(), 0u) << "b4 waits for its cap";
}

TEST_F(AdmissionLimitsTest, TheLimitMoves) {
  Start({.max_concurrent = 4, .min_concurrent = 2});
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) Admit(name, QosClass::kStandard);
  admission_->SetConcurrency(1);
  EXPECT_EQ(admission_->load().concurrency_limit, 2) << "the floor";
  EXPECT_EQ(Value("sluice_qos_concurrency_limit", {}), 2);
  EXPECT_EQ(admission_->running(), 4) << "no permit is revoked";
  Settle("a");
  Settle("b");
  EXPECT_EQ(admission_->running(), 2);
  EXPECT_EQ(permits_.count("e"), 0u);
  admission_->SetConcurrency(3);
  EXPECT_EQ(permits_.count("e"), 1u);
  admission_->SetConcurrency(100);
  EXPECT_EQ(admission_->load().concurrency_limit, 4);
  EXPECT_EQ(permits_.count("f"), 1u);
}

// 1,000 prompt tokens a second, one stream of 10 tokens a second.
constexpr EngineLoad kLoad{.slots = 8, .running = 1, .prefill_tokens_per_second = 1000, .decode_tokens_per_second = 10};

TEST_F(AdmissionLimitsTest, WhatCannotMakeItIsRefusedAtOnce) {
  Start({});
  EXPECT_EQ(Admit("ttft", {.prompt_tokens = 3000, .ttft_objective = seconds(2)}, &kLoad), 0u);
  EXPECT_THAT(refusals_["ttft"], StatusIs(StatusCode::kResourceExhausted,
                                          "first token predicted in 3000 ms, 2000 ms are left: 0 of 100 permits in "
                                          "use, 0 of 256 queue places taken"));
  ErrorDetails details = GetErrorDetails(refusals_["ttft"]);
  EXPECT_EQ(ReasonWord(details.reason), "TTFT_UNREACHABLE");
  EXPECT_EQ(details.retry_after, seconds(1));
  EXPECT_EQ(details.metadata.at("predicted_ms"), "3000");
  EXPECT_EQ(details.metadata.at("allowed_ms"), "2000");
  Admit("deadline", {.prompt_tokens = 3000, .deadline = clock_.Now() + seconds(2)}, &kLoad);
  EXPECT_EQ(ReasonOf(refusals_["deadline"]), "DEADLINE_UNREACHABLE");
  EXPECT_EQ(Value("sluice_qos_admissions_total", {"standard", "DEADLINE_UNREACHABLE"}), 1);
  Request cached{.prompt_tokens = 3000, .cached_prompt_tokens = 2000, .ttft_objective = seconds(2)};
  Admit("cached", cached, &kLoad);
  EXPECT_EQ(permits_.count("cached"), 1u);
  const EngineLoad unknown{.slots = 8};
  Admit("unknown", {.prompt_tokens = 3000, .ttft_objective = seconds(2)}, &unknown);
  EXPECT_EQ(permits_.count("unknown"), 1u) << "what nobody knows refuses nobody";
}

TEST_F(AdmissionLimitsTest, PredictionsLearnFromWhatCame) {
  Start({});
  const auto ask = [&](const std::string& name, QosClass c) {
    Admit(name, {.qos_class = c, .prompt_tokens = 1000, .ttft_objective = seconds(2)}, &kLoad);
  };
  for (int i = 0; i < 100; ++i) {
    ask("slow", QosClass::kBatch);
    auto slow = permits_.extract("slow");
    if (slow.empty()) break;  // refused in the end
    // More urgent prompts came in between; the last ones did not even get a first token by then.
    clock_.Advance(seconds(3));
    if (i < 50) {
      slow.mapped().Settle(Outcome::kSuccess, 1, seconds(3));
    } else {
      slow.mapped().Settle(Outcome::kDeadline);
    }
  }
  EXPECT_EQ(ReasonOf(refusals_["slow"]), "TTFT_UNREACHABLE");
  EXPECT_GT(admission_->load().ttft_correction[static_cast<size_t>(QosClass::kBatch)], 2);
  ask("urgent", QosClass::kInteractive);
  EXPECT_EQ(permits_.count("urgent"), 1u) << "of its own class only";
}

TEST_F(AdmissionLimitsTest, TheEndCountsOnceTheLengthOfAnswersIsKnown) {
  Start({.default_deadline = seconds(20)});
  const Request with_deadline{.prompt_tokens = 10, .max_tokens = 1000, .deadline = clock_.Now() + seconds(30)};
  Admit("first", with_deadline, &kLoad);
  EXPECT_EQ(permits_.count("first"), 1u) << "max_tokens would take 100 s, but answers may be short";
  Settle("first", 900);
  Admit("second", with_deadline, &kLoad);
  EXPECT_EQ(ReasonOf(refusals_["second"]), "DEADLINE_UNREACHABLE");
  Admit("none of its own", {.prompt_tokens = 10, .max_tokens = 1000}, &kLoad);
  EXPECT_EQ(permits_.count("none of its own"), 1u) << "what came until the default deadline is of use";
  Admit("hopeless", {.prompt_tokens = 26000, .max_tokens = 1000}, &kLoad);
  EXPECT_EQ(ReasonOf(refusals_["hopeless"]), "DEADLINE_UNREACHABLE") << "not even a first token in 20 s";
  for (int i = 0; i < 100; ++i) {
    const std::string name = fmt::format("short {}", i);
    Admit(name, {.max_tokens = 100}, &kLoad);
    Settle(name, 10);
  }
  Admit("third", with_deadline, &kLoad);
  EXPECT_EQ(permits_.count("third"), 1u) << "answers are short now";
  EXPECT_NEAR(*admission_->load().output_share, 0.1, 0.02);
}

TEST_F(AdmissionLimitsTest, PredictionsCountWhatWaits) {
  Start({.max_concurrent = 1});
  Admit("running", {.prompt_tokens = 100}, &kLoad);
  clock_.Advance(seconds(4));
  Settle("running");  // one in 4 s
  Admit("runs", {.prompt_tokens = 100}, &kLoad);
  Admit("waits", {.qos_class = QosClass::kBatch, .prompt_tokens = 100}, &kLoad);
  const auto ask = [&](const char* name, QosClass c) {
    Admit(name, {.qos_class = c, .prompt_tokens = 100, .ttft_objective = seconds(6)}, &kLoad);
  };
  ask("batch", QosClass::kBatch);
  EXPECT_THAT(refusals_["batch"], StatusIs(StatusCode::kResourceExhausted,
                                           "first token predicted in 8100 ms, 6000 ms are left: 1 of 1 permits in use, "
                                           "1 of 256 queue places taken"));
  ask("interactive", QosClass::kInteractive);
  EXPECT_EQ(refusals_.count("interactive"), 0u) << "it passes batch, so one place is enough";
}

TEST_F(AdmissionLimitsTest, DryRunLetsThemInAndTells) {
  Start({.feasibility = Feasibility::kDryRun});
  Admit("late", {.prompt_tokens = 3000, .ttft_objective = seconds(2)}, &kLoad);
  ASSERT_EQ(permits_.count("late"), 1u);
  EXPECT_EQ(permits_.at("late").would_refuse(), Reason::kTtftUnreachable);
  EXPECT_EQ(ExplainAdmitted(permits_.at("late")), "admitted;class=standard;queue_ms=0;dry_run=TTFT_UNREACHABLE");
  EXPECT_EQ(Value("sluice_qos_would_refuse_total", {"standard", "TTFT_UNREACHABLE"}), 1);
}

TEST_F(AdmissionLimitsTest, PreviewChangesNothing) {
  Start({.max_concurrent = 1, .max_queue = 1});
  EXPECT_THAT(admission_->Preview({}, &kLoad), IsOk());
  EXPECT_EQ(ReasonOf(admission_->Preview({.prompt_tokens = 3000, .ttft_objective = seconds(2)}, &kLoad)),
            "TTFT_UNREACHABLE");
  Admit("running", QosClass::kStandard);
  EXPECT_THAT(admission_->Preview({}, &kLoad), IsOk()) << "it would wait";
  Admit("waits", QosClass::kStandard);
  EXPECT_EQ(ReasonOf(admission_->Preview({}, &kLoad)), "QUEUE_FULL");
  EXPECT_THAT(admission_->Preview({.qos_class = QosClass::kSystem}, &kLoad), IsOk()) << "another would give way";
  EXPECT_EQ(admission_->queued(), 1);
  EXPECT_EQ(Value("sluice_qos_admissions_total", {"standard", "QUEUE_FULL"}), 0);
}

TEST_F(AdmissionLimitsTest, ShortWorkFirstUntilLongWorkHasWaitedForItsSize) {
  Start({.max_concurrent = 1, .starvation_after = Duration::zero(), .default_deadline = Duration::zero()});
  Admit("running", QosClass::kStandard);
  Admit("long", {.prompt_tokens = 700, .max_tokens = 10});  // 780: size 9
  Admit("short", {.prompt_tokens = 10, .max_tokens = 10});  // 90: size 6
  clock_.Advance(seconds(10));                              // worth 156 ms of a short one
  Admit("short, 150 ms before", {.prompt_tokens = 10, .max_tokens = 10});
  clock_.Advance(milliseconds(150));
  Admit("short, now", {.prompt_tokens = 10, .max_tokens = 10});
  EXPECT_THAT(RunAll(), ElementsAre("running", "short", "long", "short, 150 ms before", "short, now"));
}

TEST_F(AdmissionLimitsTest, FirstComeFirstServed) {
  Start({.max_concurrent = 1, .order = QueueOrder::kFcfs});
  Admit("running", QosClass::kStandard);
  Admit("long", {.prompt_tokens = 10000, .max_tokens = 1000});
  Admit("short", {.prompt_tokens = 10, .max_tokens = 10});
  EXPECT_THAT(RunAll(), ElementsAre("running", "long", "short"));
}

}  // namespace
}  // namespace sluice::qos
