#include "flags/flag.h"

#include <string>

#include "gtest/gtest.h"

namespace sluice::flags {
namespace {

Decision Split() {
  return {.flag = "ttft_pipeline",
          .in = true,
          .variant = "on",
          .reason = Reason::kSplit,
          .layer = Layer::kFile,
          .bucket = 1234,
          .threshold = 5000,
          .epoch = 3};
}

TEST(ExplainTest, SaysEverythingThatDecided) {
  EXPECT_EQ(Explain(Split()), "ttft_pipeline=on;reason=SPLIT;bucket=1234;threshold=5000;layer=file;epoch=3");
}

TEST(ExplainTest, BucketZeroIsShown) {
  Decision d = Split();
  d.bucket = 0;
  EXPECT_EQ(Explain(d), "ttft_pipeline=on;reason=SPLIT;bucket=0;threshold=5000;layer=file;epoch=3");
}

TEST(ExplainTest, NothingHashedShowsNoBucket) {
  const Decision d{.flag = "nope", .epoch = 9};
  EXPECT_EQ(Explain(d), "nope=off;reason=FLAG_NOT_FOUND;layer=default;epoch=9");
}

TEST(ExplainTest, ForeignTextCannotBreakATrailer) {
  const std::string name = "a;b=1\n\xc3\xbc" + std::string(500, 'x');
  Decision d = Split();
  d.variant = name;
  EXPECT_EQ(Explain(d), "ttft_pipeline=a?b=1???" + std::string(120, 'x') +
                            ";reason=SPLIT;bucket=1234;threshold=5000;layer=file;epoch=3");
}

TEST(ExplainTest, DryRunIsMarked) {
  Decision d = Split();
  d.dry_run = true;
  EXPECT_EQ(Explain(d), "ttft_pipeline=on;reason=SPLIT;bucket=1234;threshold=5000;layer=file;epoch=3;dry_run=true");
}

TEST(FlagNamesTest, LayersInOrderOfPrecedence) {
  EXPECT_EQ(LayerName(Layer::kRolloutStage), "rollout_stage");
  EXPECT_EQ(LayerName(Layer::kEmergency), "emergency");
  EXPECT_LT(Layer::kFile, Layer::kOverride);
  EXPECT_LT(Layer::kOverride, Layer::kEnv);
  EXPECT_LT(Layer::kEnv, Layer::kRollback);
  EXPECT_LT(Layer::kRollback, Layer::kEmergency);
}

}  // namespace
}  // namespace sluice::flags
