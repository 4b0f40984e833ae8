// Answers of the Open Inference Protocol.
#include "services/grpc/oip_codec.h"

#include "tests/services/oip_messages.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using inference::ModelInferResponse;
using test::Raw;
using test::RawText;

class OipEncode : public testing::Test {
 protected:
  OipEncode() {
    request_.id = "7";
    request_.want_text = true;
    summary_.reason = engine::FinishReason::kLength;
    summary_.prompt_tokens = 5;
    summary_.output_tokens = 3;
    summary_.cached_tokens = 2;
  }

  int64_t Int(const std::string& name) const { return response_.parameters().at(name).int64_param(); }
  std::string Text(const std::string& name) const { return response_.parameters().at(name).string_param(); }

  OipRequest request_;
  const FlowInfo info_{.request_id = "r1", .model = "smol", .pipeline = "ttft"};
  engine::GenerationSummary summary_;
  ModelInferResponse response_;
};

TEST_F(OipEncode, APartCarriesOnlyWhatWasRequested) {
  EncodeChunk(request_, info_, {.text = "Hi", .token_ids = {4}}, response_);
  EXPECT_EQ(response_.model_name(), "smol");
  EXPECT_EQ(response_.model_version(), "1");
  EXPECT_EQ(response_.id(), "7");
  ASSERT_EQ(response_.outputs_size(), 1);
  EXPECT_EQ(response_.outputs(0).name(), "text_output");
  EXPECT_EQ(response_.raw_output_contents(0), RawText("Hi"));
  EXPECT_TRUE(response_.parameters().empty());
}

TEST_F(OipEncode, TheLastPartSaysReasonAndUsage) {
  request_.want_token_ids = request_.want_finish_reason = true;
  EncodeChunk(request_, info_, {.text = "", .token_ids = {4, 5}, .summary = &summary_}, response_);
  ASSERT_EQ(response_.outputs_size(), 3);
  EXPECT_EQ(response_.raw_output_contents(0), RawText(""));
  EXPECT_EQ(response_.outputs(1).name(), "token_ids");
  EXPECT_EQ(response_.raw_output_contents(1), Raw(int32_t{4}) + Raw(int32_t{5}));
  EXPECT_EQ(response_.outputs(2).name(), "finish_reason");
  EXPECT_EQ(response_.raw_output_contents(2), RawText("length"));
  EXPECT_EQ(Int("prompt_tokens"), 5);
  EXPECT_EQ(Int("output_tokens"), 3);
  EXPECT_EQ(Int("cached_tokens"), 2);
  EXPECT_EQ(Text("sluice_request_id"), "r1");
  EXPECT_EQ(Text("sluice_pipeline"), "ttft");
}

TEST_F(OipEncode, EarlierPartsHaveNoReasonYet) {
  request_.want_text = false;
  request_.want_finish_reason = true;
  EncodeChunk(request_, info_, {.text = "Hi"}, response_);
  ASSERT_EQ(response_.outputs_size(), 1);
  EXPECT_EQ(response_.raw_output_contents(0), RawText(""));
}

TEST_F(OipEncode, EmptyFinalResponseHasFlagAndIdOnly) {
  EncodeEmptyFinal(request_, info_, response_);
  EXPECT_EQ(response_.id(), "7");
  EXPECT_EQ(response_.outputs_size(), 0);
  EXPECT_TRUE(response_.parameters().at("triton_final_response").bool_param());
  SetFinalFlag(false, response_);
  EXPECT_FALSE(response_.parameters().at("triton_final_response").bool_param());
}

TEST_F(OipEncode, EmbeddingIsOneVector) {
  EncodeEmbedding(request_, info_, {0.5F, -0.25F}, 9, response_);
  ASSERT_EQ(response_.outputs_size(), 1);
  EXPECT_EQ(response_.outputs(0).name(), "embedding");
  EXPECT_EQ(response_.outputs(0).shape(0), 2);
  EXPECT_EQ(response_.raw_output_contents(0), Raw(0.5F) + Raw(-0.25F));
  EXPECT_EQ(Int("prompt_tokens"), 9);
}

TEST_F(OipEncode, StreamErrorsKeepTheIdAndSayWhenToRetry) {
  inference::ModelStreamInferResponse response;
  EncodeStreamError(
      "7", "smol", MakeError(Reason::kQueueFull, "256 requests wait", {.retry_after = std::chrono::milliseconds(1500)}),
      /*tokens_emitted=*/0, response);
  EXPECT_EQ(response.error_message(), "QUEUE_FULL: 256 requests wait");
  response_ = response.infer_response();
  EXPECT_EQ(response_.id(), "7");
  EXPECT_EQ(response_.model_name(), "smol");
  EXPECT_TRUE(response_.parameters().at("triton_final_response").bool_param());
  EXPECT_EQ(Text("sluice_code"), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(Text("sluice_reason"), "QUEUE_FULL");
  EXPECT_EQ(Int("sluice_retry_after_ms"), 1500);
  EXPECT_TRUE(response_.parameters().at("sluice_retry_safe").bool_param());
  EXPECT_EQ(Int("sluice_tokens_emitted"), 0);
}

TEST_F(OipEncode, StreamErrorsWithoutDetailsStillSayTheCode) {
  inference::ModelStreamInferResponse response;
  EncodeStreamError("", "", absl::InternalError("broken"), /*tokens_emitted=*/3, response);
  EXPECT_EQ(response.error_message(), "INTERNAL: broken");
  response_ = response.infer_response();
  EXPECT_FALSE(response_.parameters().contains("sluice_retry_after_ms"));
  EXPECT_FALSE(response_.parameters().at("sluice_retry_safe").bool_param());
  EXPECT_EQ(Int("sluice_tokens_emitted"), 3);
}

}  // namespace
}  // namespace sluice::services
