#include "services/grpc/oip_metadata.h"

#include "services/grpc/oip_codec.h"
#include "services/grpc/oip_statistics.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using engine::ModelInfo;
using engine::ModelState;
using std::chrono::milliseconds;

ModelInfo Model(ModelState state = ModelState::kReady) {
  ModelInfo model;
  model.spec.name = "smol";
  model.spec.path = "/models/smol.gguf";
  model.state = state;
  model.facts.emplace();
  model.facts->embedding_size = 576;
  return model;
}

TEST(OipMetadata, ListsExactlyTheTensorsThatAreAccepted) {
  inference::ModelMetadataResponse response;
  EncodeModelMetadata(Model(), /*embeddings=*/true, response);
  EXPECT_EQ(response.name(), "smol");
  EXPECT_EQ(response.platform(), "sluice_llama");
  EXPECT_THAT(response.versions(), testing::ElementsAre("1"));
  std::string inputs;
  for (const auto& input : response.inputs()) {
    inputs += input.name() + " ";
    const OipOption* option = FindOipOption(input.name(), kOipTensor);
    ASSERT_NE(option, nullptr) << input.name();
    EXPECT_EQ(input.datatype(), option->datatype);
    EXPECT_EQ(input.shape(0), option->list ? -1 : 1);
  }
  EXPECT_EQ(inputs,
            "text_input stream sampling_parameters max_tokens temperature top_p top_k min_p repetition_penalty "
            "presence_penalty frequency_penalty seed stop ignore_eos truncate_prompt exclude_input_in_output ");
  ASSERT_EQ(response.outputs_size(), 4);
  EXPECT_EQ(response.outputs(3).name(), "embedding");
  EXPECT_EQ(response.outputs(3).shape(0), 576);
}

TEST(OipMetadata, HasNoEmbeddingWhereThereIsNone) {
  inference::ModelMetadataResponse response;
  ModelInfo model = Model();
  model.spec.path = "synthetic:";
  EncodeModelMetadata(model, /*embeddings=*/false, response);
  EXPECT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.platform(), "sluice_synthetic");
  model.facts.reset();
  inference::ModelMetadataResponse unloaded;
  EncodeModelMetadata(model, /*embeddings=*/true, unloaded);
  EXPECT_EQ(unloaded.outputs(3).shape(0), -1);
}

TEST(OipMetadata, ConfigSaysTheSameInTritonsTypes) {
  inference::ModelConfig config;
  EncodeModelConfig(Model(), /*embeddings=*/true, config);
  EXPECT_EQ(config.max_batch_size(), 0);
  EXPECT_TRUE(config.model_transaction_policy().decoupled());
  ASSERT_EQ(config.input_size(), 16);
  EXPECT_EQ(config.input(0).name(), "text_input");
  EXPECT_EQ(config.input(0).data_type(), inference::TYPE_STRING);
  EXPECT_FALSE(config.input(0).optional());
  for (int i = 1; i < config.input_size(); ++i) EXPECT_TRUE(config.input(i).optional()) << config.input(i).name();
  EXPECT_EQ(config.input(1).data_type(), inference::TYPE_BOOL);
  EXPECT_EQ(config.input(3).data_type(), inference::TYPE_INT32);
  EXPECT_EQ(config.input(4).data_type(), inference::TYPE_FP32);
  EXPECT_EQ(config.input(11).data_type(), inference::TYPE_UINT64);
  EXPECT_EQ(config.output_size(), 4);
}

TEST(OipMetadata, ServerNamesItsVersionAndOnlyExtensionsItHas) {
  inference::ServerMetadataResponse response;
  EncodeServerMetadata(response);
  EXPECT_EQ(response.name(), "sluice");
  EXPECT_THAT(response.version(), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_THAT(response.extensions(), testing::Contains("schedule_policy"));
  EXPECT_THAT(response.extensions(), testing::Not(testing::Contains("system_shared_memory")));
}

TEST(OipMetadata, IndexSaysWhyAModelIsUnavailable) {
  inference::RepositoryIndexResponse::ModelIndex index;
  EncodeModelIndex(Model(ModelState::kReady), index);
  EXPECT_EQ(index.state(), "READY");
  EXPECT_EQ(index.reason(), "");
  EXPECT_EQ(index.version(), "1");
  ModelInfo failed = Model(ModelState::kFailed);
  failed.error = absl::InvalidArgumentError("not a GGUF file");
  EncodeModelIndex(failed, index);
  EXPECT_EQ(index.state(), "UNAVAILABLE");
  EXPECT_EQ(index.reason(), "not a GGUF file");
  EncodeModelIndex(Model(ModelState::kUnloaded), index);
  EXPECT_EQ(index.reason(), "unloaded");
  inference::RepositoryIndexResponse::ModelIndex loading;
  EncodeModelIndex(Model(ModelState::kLoading), loading);
  EXPECT_EQ(loading.state(), "LOADING");
}

TEST(OipStatistics, CountsAndAddsUpPerModel) {
  test::ManualClock clock;
  OipStatistics statistics(clock);
  engine::GenerationSummary summary;
  summary.queue_wait = milliseconds(1);
  summary.prefill = milliseconds(20);
  summary.decode = milliseconds(300);
  statistics.Record("smol", true, milliseconds(400), &summary);
  statistics.Record("smol", true, milliseconds(50), nullptr);
  statistics.Record("smol", false, milliseconds(7), &summary);
  inference::ModelStatistics smol;
  statistics.Fill("smol", smol);
  EXPECT_EQ(smol.inference_count(), 2U);
  EXPECT_EQ(smol.inference_stats().success().ns(), 450'000'000U);
  EXPECT_EQ(smol.inference_stats().fail().count(), 1U);
  EXPECT_EQ(smol.inference_stats().fail().ns(), 7'000'000U);
  EXPECT_EQ(smol.inference_stats().queue().count(), 1U);
  EXPECT_EQ(smol.inference_stats().queue().ns(), 1'000'000U);
  EXPECT_EQ(smol.inference_stats().compute_input().ns(), 20'000'000U);
  EXPECT_EQ(smol.inference_stats().compute_infer().ns(), 300'000'000U);
  EXPECT_GT(smol.last_inference(), 0U);
  inference::ModelStatistics other;
  statistics.Fill("other", other);
  EXPECT_EQ(other.name(), "other");
  EXPECT_EQ(other.inference_count(), 0U);
  EXPECT_EQ(other.last_inference(), 0U);
}

}  // namespace
}  // namespace sluice::services
