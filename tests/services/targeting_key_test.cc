#include "services/targeting_key.h"

#include "gtest/gtest.h"

namespace sluice::services {
namespace {

InferenceRequest Request() {
  return {.request_id = "r1",
          .tenant = "acme",
          .user = "alice",
          .conversation = "c7",
          .headers = {{"x-account", "a-17"}, {"x-empty", ""}}};
}

TEST(TargetingKeyTest, TheDefaultIsUserThenConversationThenRequest) {
  const TargetingKeyOrder order;
  InferenceRequest request = Request();
  EXPECT_EQ(order.Of(request), "alice");
  request.user.clear();
  EXPECT_EQ(order.Of(request), "c7");
  request.conversation.clear();
  EXPECT_EQ(order.Of(request), "r1");
}

TEST(TargetingKeyTest, TheFirstThatIsThereDecides) {
  const InferenceRequest request = Request();
  EXPECT_EQ(TargetingKeyOrder({"tenant"}).Of(request), "acme");
  EXPECT_EQ(TargetingKeyOrder({"header:x-account", "user"}).Of(request), "a-17");
  EXPECT_EQ(TargetingKeyOrder({"header:x-other", "header:x-empty", "conversation"}).Of(request), "c7");
  EXPECT_EQ(TargetingKeyOrder({"header:x-other"}).Of(request), "") << "nothing: no percentage lets it in";
}

}  // namespace
}  // namespace sluice::services
