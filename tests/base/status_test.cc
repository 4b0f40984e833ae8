#include "base/status.h"

#include "base/check.h"
#include "tests/support/status_matchers.h"

namespace sluice {
namespace {

using test::IsOk;
using test::StatusIs;

TEST(StatusTest, DetailsSurviveTheTrip) {
  ErrorDetails details{.retry_after = std::chrono::milliseconds(250)};
  details.violations = {{"a.b", "got 3:5; allowed 0"}, {"", std::string("nul\0byte", 8)}};
  details.metadata = {{"queue_limit", "256"}, {"", "7:x"}};
  const absl::Status status = MakeError(Reason::kQueueFull, "full", details);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, "full"));
  const ErrorDetails back = GetErrorDetails(status);
  EXPECT_EQ(back.reason, Reason::kQueueFull);
  EXPECT_EQ(back.retry_after, std::chrono::milliseconds(250));
  ASSERT_EQ(back.violations.size(), 2u);
  EXPECT_EQ(back.violations[0].description, "got 3:5; allowed 0");
  EXPECT_EQ(back.violations[1].description, std::string("nul\0byte", 8));
  EXPECT_EQ(back.metadata, details.metadata);
}

TEST(StatusTest, ReasonFallsBackToTheCode) {
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "OK");
  EXPECT_EQ(ReasonOf(absl::UnavailableError("x")), "UNAVAILABLE");
  EXPECT_EQ(ReasonOf(MakeError(Reason::kDraining, "x")), "DRAINING");
  EXPECT_EQ(GetErrorDetails(absl::UnavailableError("x")).retry_after, std::nullopt);
}

TEST(StatusTest, RetryIsSafeWhenNothingWasDoneOrNothingEmitted) {
  EXPECT_TRUE(RetrySafe(MakeError(Reason::kQueueFull, "x")));
  EXPECT_FALSE(RetrySafe(MakeError(Reason::kEngineStepFailed, "x")));
  EXPECT_TRUE(RetrySafe(MakeError(Reason::kEngineStepFailed, "x"), 0)) << "no token left the server";
  EXPECT_FALSE(RetrySafe(MakeError(Reason::kEngineStepFailed, "x"), 1));
  EXPECT_FALSE(RetrySafe(absl::UnavailableError("x"))) << "who knows what was done";
}

TEST(StatusTest, AnErrorNeedsAReason) { EXPECT_DEATH(MakeError(Reason::kOk, "x"), "needs a reason"); }

TEST(StatusTest, InvalidFieldsNamesEveryField) {
  const absl::Status status = InvalidFields({{"top_p", "got 2; allowed (0, 1]"}, {"top_k", "got -1"}});
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "top_p: got 2; allowed (0, 1]; top_k: got -1"));
  EXPECT_EQ(ReasonOf(status), "INVALID_FIELD");
  EXPECT_DEATH(InvalidFields({}), "needs a violation");
}

absl::StatusOr<int> Half(int n) {
  if (n % 2 != 0) return absl::InvalidArgumentError("odd");
  return n / 2;
}

absl::StatusOr<int> Quarter(int n) {
  SLUICE_ASSIGN_OR_RETURN(const int half, Half(n));
  SLUICE_RETURN_IF_ERROR(Half(half).status());
  return Half(half);
}

TEST(StatusTest, MacrosReturnTheFirstError) {
  EXPECT_THAT(Quarter(8), IsOk());
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_THAT(Quarter(7), StatusIs(absl::StatusCode::kInvalidArgument, "odd"));
  EXPECT_THAT(Quarter(6), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CheckDeathTest, PrintsWhereWhatAndWhyThenAborts) {
  EXPECT_DEATH(SLUICE_CHECK(1 + 1 == 3, "sums hold"), "status_test.cc:[0-9]+: .*1 \\+ 1 == 3 \\(sums hold\\)");
  SLUICE_CHECK(true, "no effect");
}

}  // namespace
}  // namespace sluice
