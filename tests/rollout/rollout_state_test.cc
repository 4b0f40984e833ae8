#include "rollout/rollout_state.h"

#include "gtest/gtest.h"

namespace sluice::rollout {
namespace {

RolloutState Example() {
  return {.flag = "ttft_pipeline",
          .epoch = 7,
          .attempt = 2,
          .phase = Phase::kHolding,
          .stage = 1,
          .bps = 1'000,
          .retries = 1,
          .since = WallTime(Duration(1'700'000'000'123'456'789)),
          .stage_since = WallTime(Duration(1'700'000'000'000'000'000)),
          .cause = "says \"so\" \xff",
          .history = {{.when = WallTime(Duration(5)),
                       .from = Phase::kPending,
                       .to = Phase::kPromoting,
                       .bps = 100,
                       .epoch = 6,
                       .cause = "begins"}}};
}

TEST(RolloutState, SurvivesItsCode) {
  RolloutState state = Example();
  const auto read = DecodeRolloutState(Encode(state));
  ASSERT_TRUE(read.ok()) << read.status();
  state.cause = "says \"so\" \xEF\xBF\xBD";  // what is no UTF-8 is replaced
  EXPECT_EQ(*read, state);
  EXPECT_EQ(state.attempt_id(), "ttft_pipeline#2");
}

TEST(RolloutState, WhatIsDamagedIsRefused) {
  const std::string text = Encode(Example());
  for (const std::string& bad :
       {std::string(), std::string("[]"), std::string("{}"), text.substr(0, text.size() - 1)}) {
    EXPECT_EQ(DecodeRolloutState(bad).status().code(), absl::StatusCode::kDataLoss) << bad;
  }
  const auto with = [&text](std::string_view from, std::string_view to) {
    std::string changed = text;
    const size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  EXPECT_FALSE(DecodeRolloutState(with("\"bps\":1000,\"c", "\"bps\":10001,\"c")).ok());
  EXPECT_FALSE(DecodeRolloutState(with("\"bps\":1000,\"c", "\"bps\":-1,\"c")).ok());
  EXPECT_FALSE(DecodeRolloutState(with("\"stage\":1", "\"stage\":20")).ok());
  EXPECT_FALSE(DecodeRolloutState(with("holding", "folding")).ok());
  EXPECT_FALSE(DecodeRolloutState(with("\"to\":\"promoting\"", "\"to\":3")).ok());
}

TEST(RolloutState, EachPhaseHasItsName) {
  for (int i = 0; i < kPhases; ++i) EXPECT_EQ(ParsePhase(PhaseName(static_cast<Phase>(i))), static_cast<Phase>(i));
  EXPECT_FALSE(ParsePhase("gone").has_value());
}

}  // namespace
}  // namespace sluice::rollout
