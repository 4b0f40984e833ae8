// Requests of the Open Inference Protocol: tensors, parameters and JSON become one request, or every error by name.
#include <cmath>
#include <limits>

#include "services/grpc/oip_codec.h"
#include "tests/services/oip_messages.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using inference::ModelInferRequest;
using test::AddOutput;
using test::AddRaw;
using test::IsOk;
using test::Parameter;
using test::Raw;
using test::RawText;
using test::StatusIs;
using test::TextRequest;
using test::Violations;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

absl::StatusOr<OipRequest> Decode(const ModelInferRequest& message, bool streaming = false) {
  return DecodeInfer(message, streaming, FieldLimits());
}

std::string Errors(const ModelInferRequest& message, bool streaming = false) {
  const auto decoded = Decode(message, streaming);
  EXPECT_THAT(decoded, StatusIs(absl::StatusCode::kInvalidArgument));
  return Violations(decoded.status());
}

ModelInferRequest WithJson(std::string_view json) {
  ModelInferRequest message = TextRequest();
  AddRaw(message, "sampling_parameters", "BYTES", {1}, RawText(json));
  return message;
}

TEST(OipDecode, TextAloneIsEnough) {
  const auto request = Decode(TextRequest("Once upon"));
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->generate.prompt(), "Once upon");
  EXPECT_EQ(request->generate.model(), "smol");
  EXPECT_EQ(request->id, "7");
  EXPECT_FALSE(request->generate.has_max_tokens());
  EXPECT_FALSE(request->generate.has_sampling());
  EXPECT_TRUE(request->want_text);
  EXPECT_FALSE(request->want_token_ids || request->want_finish_reason || request->want_embedding);
}

TEST(OipDecode, EveryTensorArrives) {
  ModelInferRequest message = TextRequest();
  AddRaw(message, "stream", "BOOL", {1}, Raw(uint8_t{0}));
  AddRaw(message, "max_tokens", "INT32", {1, 1}, Raw(int32_t{12}));
  AddRaw(message, "temperature", "FP32", {1}, Raw(0.5F));
  AddRaw(message, "top_p", "FP32", {1}, Raw(0.25F));
  AddRaw(message, "top_k", "INT32", {1}, Raw(int32_t{3}));
  AddRaw(message, "min_p", "FP32", {1}, Raw(0.125F));
  AddRaw(message, "repetition_penalty", "FP32", {1}, Raw(1.5F));
  AddRaw(message, "presence_penalty", "FP32", {1}, Raw(-1.0F));
  AddRaw(message, "frequency_penalty", "FP32", {1}, Raw(1.0F));
  AddRaw(message, "seed", "UINT64", {1}, Raw(~uint64_t{0}));
  AddRaw(message, "stop", "BYTES", {2}, RawText("\n") + RawText("END"));
  AddRaw(message, "ignore_eos", "BOOL", {1}, Raw(uint8_t{1}));
  AddRaw(message, "truncate_prompt", "BOOL", {1}, Raw(uint8_t{1}));
  AddRaw(message, "exclude_input_in_output", "BOOL", {1}, Raw(uint8_t{1}));
  const auto request = Decode(message, /*streaming=*/true);
  ASSERT_THAT(request, IsOk());
  const auto& g = request->generate;
  EXPECT_FALSE(request->stream);
  EXPECT_EQ(g.max_tokens(), 12);
  EXPECT_EQ(g.sampling().temperature(), 0.5F);
  EXPECT_EQ(g.sampling().top_p(), 0.25F);
  EXPECT_EQ(g.sampling().top_k(), 3);
  EXPECT_EQ(g.sampling().min_p(), 0.125F);
  EXPECT_EQ(g.sampling().repetition_penalty(), 1.5F);
  EXPECT_EQ(g.sampling().presence_penalty(), -1.0F);
  EXPECT_EQ(g.sampling().frequency_penalty(), 1.0F);
  EXPECT_EQ(g.sampling().seed(), ~uint64_t{0});
  EXPECT_THAT(g.stop(), ElementsAre("\n", "END"));
  EXPECT_TRUE(g.ignore_eos());
  EXPECT_TRUE(g.truncate_prompt());
  EXPECT_EQ(request->repeated_input, "");
}

TEST(OipDecode, TypedContentsAreReadWithoutRawOnes) {
  ModelInferRequest message;
  auto* text = message.add_inputs();
  *text = test::MakeTensor("text_input", "BYTES", {1, 1});
  text->mutable_contents()->add_bytes_contents("Hi");
  auto* tokens = message.add_inputs();
  *tokens = test::MakeTensor("max_tokens", "INT32", {1});
  tokens->mutable_contents()->add_int_contents(4);
  const auto request = Decode(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->generate.prompt(), "Hi");
  EXPECT_EQ(request->generate.max_tokens(), 4);
}

TEST(OipDecode, RawAndTypedContentsDoNotMix) {
  ModelInferRequest message = TextRequest();
  message.mutable_inputs(0)->mutable_contents()->add_bytes_contents("Hello");
  EXPECT_THAT(Errors(message), StartsWith("text_input: has contents although raw_input_contents"));
  ModelInferRequest fewer = TextRequest();
  *fewer.add_inputs() = test::MakeTensor("max_tokens", "INT32", {1});
  EXPECT_EQ(Errors(fewer), "raw_input_contents: got 1; wants one for each of the 2 inputs\n");
  ModelInferRequest more = TextRequest();
  more.add_raw_input_contents("");
  EXPECT_EQ(Errors(more), "raw_input_contents: got 2; wants one for each of the 1 inputs\n");
  ModelInferRequest nothing;
  nothing.add_raw_input_contents("abc");
  EXPECT_EQ(Errors(nothing), "raw_input_contents: got 1; wants one for each of the 0 inputs\n");
}

TEST(OipDecode, EveryViolationIsNamedAtOnce) {
  ModelInferRequest message = TextRequest();
  AddRaw(message, "temprature", "FP32", {1}, Raw(0.5F));
  AddRaw(message, "max_tokens", "INT64", {1}, Raw(int64_t{5}));
  AddRaw(message, "top_k", "INT32", {2}, Raw(int64_t{5}));
  Parameter(message, "colour").set_string_param("blue");
  AddOutput(message, "logits");
  const std::string errors = Errors(message);
  EXPECT_THAT(errors, HasSubstr("temprature: no such input; allowed: text_input, stream, sampling_parameters, "
                                "max_tokens, temperature"));
  EXPECT_THAT(errors, HasSubstr("max_tokens: datatype \"INT64\"; wants INT32\n"));
  EXPECT_THAT(errors, HasSubstr("top_k: shape [2]; wants [1] or [1, 1]\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.colour: no such parameter; allowed: "));
  EXPECT_THAT(errors, HasSubstr("outputs.logits: no such output; allowed: text_output, token_ids, finish_reason"));
}

TEST(OipDecode, TextInputIsNeededAndMustBeUtf8) {
  EXPECT_EQ(Errors(ModelInferRequest()), "text_input: missing; wants BYTES of shape [1]\n");
  EXPECT_EQ(Errors(TextRequest("caf\xe9")), "text_input: not UTF-8\n");
  ModelInferRequest as_parameter;
  Parameter(as_parameter, "text_input").set_string_param("Hello");
  EXPECT_THAT(Errors(as_parameter), StartsWith("parameters.text_input: no such parameter"));
  ModelInferRequest stop = TextRequest();
  AddRaw(stop, "stop", "BYTES", {1}, RawText("\xff"));
  EXPECT_EQ(Errors(stop), "stop: not UTF-8\n");
}

TEST(OipDecode, SharedMemoryAndClassificationAreRefused) {
  ModelInferRequest input = TextRequest();
  (*input.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("r");
  EXPECT_THAT(Errors(input), HasSubstr("text_input: is in shared memory"));
  ModelInferRequest output = TextRequest();
  AddOutput(output, "text_output");
  (*output.mutable_outputs(0)->mutable_parameters())["classification"].set_int64_param(3);
  EXPECT_THAT(Errors(output), HasSubstr("outputs.text_output: parameter classification is not supported"));
}

TEST(OipDecode, ParametersOfEveryKindSayTheSame) {
  ModelInferRequest message = TextRequest();
  Parameter(message, "max_tokens").set_int64_param(9);
  Parameter(message, "top_k").set_uint64_param(8);
  Parameter(message, "temperature").set_double_param(0.5);
  Parameter(message, "top_p").set_string_param("0.25");
  Parameter(message, "min_p").set_int64_param(0);
  Parameter(message, "seed").set_string_param("18446744073709551615");
  Parameter(message, "stop").set_string_param("END");
  Parameter(message, "ignore_eos").set_bool_param(true);
  const auto request = Decode(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->generate.max_tokens(), 9);
  EXPECT_EQ(request->generate.sampling().top_k(), 8);
  EXPECT_EQ(request->generate.sampling().temperature(), 0.5F);
  EXPECT_EQ(request->generate.sampling().top_p(), 0.25F);
  EXPECT_TRUE(request->generate.sampling().has_min_p());
  EXPECT_EQ(request->generate.sampling().seed(), ~uint64_t{0});
  EXPECT_THAT(request->generate.stop(), ElementsAre("END"));
  EXPECT_TRUE(request->generate.ignore_eos());
}

TEST(OipDecode, ParametersThatAreNoSuchNumberAreRefused) {
  ModelInferRequest message = TextRequest();
  Parameter(message, "max_tokens").set_int64_param(int64_t{1} << 31);
  Parameter(message, "top_k").set_double_param(2.0);
  Parameter(message, "seed").set_int64_param(-1);
  Parameter(message, "temperature").set_string_param("0.7x");
  Parameter(message, "top_p").set_double_param(std::numeric_limits<double>::quiet_NaN());
  Parameter(message, "min_p").set_double_param(1e300);
  Parameter(message, "ignore_eos").set_int64_param(1);
  Parameter(message, "stop");
  const std::string errors = Errors(message);
  EXPECT_THAT(errors, HasSubstr("parameters.max_tokens: got 2147483648; wants INT32\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.top_k: got 2; wants INT32\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.seed: got -1; wants UINT64\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.temperature: got \"0.7x\"; wants FP32\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.top_p: got nan; wants FP32\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.min_p: got 1e+300; wants FP32\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.ignore_eos: got 1; wants BOOL\n"));
  EXPECT_THAT(errors, HasSubstr("parameters.stop: has no value\n"));
}

TEST(OipDecode, PriorityCountsAsTritonDoes) {
  const std::vector<v1::PriorityClass> expected = {v1::PRIORITY_CLASS_UNSPECIFIED, v1::PRIORITY_CLASS_SYSTEM,
                                                   v1::PRIORITY_CLASS_INTERACTIVE, v1::PRIORITY_CLASS_STANDARD,
                                                   v1::PRIORITY_CLASS_BATCH};
  for (uint64_t priority = 0; priority < expected.size(); ++priority) {
    ModelInferRequest message = TextRequest();
    Parameter(message, "priority").set_uint64_param(priority);
    const auto request = Decode(message);
    ASSERT_THAT(request, IsOk());
    EXPECT_EQ(request->generate.priority_class(), expected[priority]);
  }
  ModelInferRequest message = TextRequest();
  Parameter(message, "priority").set_uint64_param(5);
  EXPECT_EQ(Errors(message),
            "parameters.priority: got 5; wants 0 or 3 (standard), 1 (system), 2 (interactive) or 4 "
            "(batch)\n");
  Parameter(message, "priority").set_uint64_param(~uint64_t{0});
  EXPECT_THAT(Errors(message), StartsWith("parameters.priority: got 18446744073709551615"));
}

TEST(OipDecode, TimeoutIsMicrosecondsUpToADay) {
  ModelInferRequest message = TextRequest();
  Parameter(message, "timeout").set_int64_param(1500);
  EXPECT_EQ(Decode(message)->timeout, std::chrono::microseconds(1500));
  Parameter(message, "timeout").set_int64_param(86'400'000'000);
  EXPECT_EQ(Decode(message)->timeout, std::chrono::hours(24));
  for (const int64_t wrong : {int64_t{86'400'000'001}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
    Parameter(message, "timeout").set_int64_param(wrong);
    EXPECT_THAT(Errors(message), HasSubstr("wants microseconds, 0 to 86400000000"));
  }
}

TEST(OipDecode, SequenceIdIsTheConversation) {
  ModelInferRequest message = TextRequest();
  Parameter(message, "sequence_id").set_int64_param(42);
  Parameter(message, "sequence_start").set_bool_param(true);
  Parameter(message, "sequence_end").set_bool_param(false);
  Parameter(message, "tenant").set_string_param("acme");
  Parameter(message, "user").set_string_param("ann");
  const auto request = Decode(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->generate.conversation(), "42");
  EXPECT_EQ(request->generate.tenant(), "acme");
  EXPECT_EQ(request->generate.user(), "ann");
  Parameter(message, "sequence_id").set_string_param("chat-1");
  EXPECT_EQ(Decode(message)->generate.conversation(), "chat-1");
  Parameter(message, "sequence_id").set_uint64_param(0);
  EXPECT_EQ(Decode(message)->generate.conversation(), "");
  Parameter(message, "sequence_id").set_bool_param(true);
  EXPECT_EQ(Errors(message), "parameters.sequence_id: got true; wants a number or a string\n");
}

TEST(OipDecode, SamplingParametersAreJsonWithNumbersOrTheirText) {
  const auto request = Decode(WithJson(R"({"temperature": "0.5", "top_p": 1, "top_k": 7, "max_tokens": "20",
      "seed": 3, "stop": ["a", "b"], "ignore_eos": true, "min_p": null, "repetition_penalty": 1.5})"));
  ASSERT_THAT(request, IsOk());
  const auto& g = request->generate;
  EXPECT_EQ(g.sampling().temperature(), 0.5F);
  EXPECT_EQ(g.sampling().top_p(), 1.0F);
  EXPECT_EQ(g.sampling().top_k(), 7);
  EXPECT_EQ(g.max_tokens(), 20);
  EXPECT_EQ(g.sampling().seed(), 3U);
  EXPECT_THAT(g.stop(), ElementsAre("a", "b"));
  EXPECT_TRUE(g.ignore_eos());
  EXPECT_FALSE(g.sampling().has_min_p());
  EXPECT_EQ(g.sampling().repetition_penalty(), 1.5F);
  EXPECT_THAT(Decode(WithJson(R"({"stop": "a"})"))->generate.stop(), ElementsAre("a"));
  EXPECT_THAT(Decode(WithJson("{}")), IsOk());
}

TEST(OipDecode, BadSamplingParametersAreRefused) {
  for (const char* json : {"", "{", "{\"top_k\": 1", "[]", "3", "null", "{\"top_k\": 01}", "{} {}"}) {
    EXPECT_EQ(Errors(WithJson(json)), "sampling_parameters: not a JSON object\n") << json;
  }
  EXPECT_EQ(Errors(WithJson(R"({"best_of": 2})")),
            "sampling_parameters.best_of: no such key; allowed: max_tokens, temperature, top_p, top_k, min_p, "
            "repetition_penalty, presence_penalty, frequency_penalty, seed, stop, ignore_eos\n");
  EXPECT_EQ(Errors(WithJson(R"({"top_k": [1]})")), "sampling_parameters.top_k: wants INT32\n");
  EXPECT_EQ(Errors(WithJson(R"({"top_k": 1e99})")), "sampling_parameters.top_k: got 1e+99; wants INT32\n");
  EXPECT_EQ(Errors(WithJson(R"({"top_k": 99999999999999999999})")),
            "sampling_parameters.top_k: got 1e+20; wants INT32\n");
  EXPECT_EQ(Errors(WithJson(R"({"stop": [["a"]]})")),
            "sampling_parameters.stop: wants a string or a list of strings\n");
  EXPECT_EQ(Errors(WithJson(R"({"stop": [1]})")), "sampling_parameters.stop: got 1; wants BYTES\n");
  EXPECT_THAT(Errors(WithJson("{\"stop\": \"" + std::string(70000, 'a') + "\"}")),
              HasSubstr("got 70012 bytes; allowed up to 65536"));
  EXPECT_EQ(Errors(WithJson(std::string(60000, '['))), "sampling_parameters: not a JSON object\n");
}

TEST(OipDecode, AnOptionIsGivenOnce) {
  ModelInferRequest message = WithJson(R"({"top_k": 1})");
  AddRaw(message, "top_k", "INT32", {1}, Raw(int32_t{2}));
  EXPECT_EQ(Errors(message), "top_k: top_k was given twice (as a tensor, a parameter or in sampling_parameters)\n");
  ModelInferRequest parameter = TextRequest();
  AddRaw(parameter, "top_k", "INT32", {1}, Raw(int32_t{2}));
  Parameter(parameter, "top_k").set_int64_param(2);
  EXPECT_THAT(Errors(parameter), StartsWith("parameters.top_k: top_k was given twice"));
  ModelInferRequest tensor = TextRequest();
  AddRaw(tensor, "text_input", "BYTES", {1}, RawText("again"));
  EXPECT_THAT(Errors(tensor), StartsWith("text_input: text_input was given twice"));
}

TEST(OipDecode, StreamingIsForModelStreamInfer) {
  ModelInferRequest message = TextRequest();
  EXPECT_FALSE(Decode(message, /*streaming=*/false)->stream);
  EXPECT_TRUE(Decode(message, /*streaming=*/true)->stream);
  Parameter(message, "stream").set_bool_param(true);
  EXPECT_EQ(Errors(message), "stream: got true; ModelInfer answers once, use ModelStreamInfer to stream\n");
  EXPECT_TRUE(Decode(message, /*streaming=*/true)->stream);
  Parameter(message, "stream").set_bool_param(false);
  EXPECT_FALSE(Decode(message, /*streaming=*/true)->stream);
}

TEST(OipDecode, TheInputIsRepeatedUnlessStreamedOrExcluded) {
  ModelInferRequest message = TextRequest("Hello");
  EXPECT_EQ(Decode(message)->repeated_input, "Hello");
  EXPECT_EQ(Decode(message, /*streaming=*/true)->repeated_input, "");
  Parameter(message, "exclude_input_in_output").set_bool_param(true);
  EXPECT_EQ(Decode(message)->repeated_input, "");
  Parameter(message, "exclude_input_in_output").set_bool_param(false);
  EXPECT_EQ(Decode(message)->repeated_input, "Hello");
  EXPECT_EQ(Errors(message, /*streaming=*/true),
            "exclude_input_in_output: got false; a streamed output never repeats its input\n");
}

TEST(OipDecode, OutputsAreTheOnesRequested) {
  ModelInferRequest message = TextRequest();
  AddOutput(message, "token_ids");
  AddOutput(message, "finish_reason");
  const auto request = Decode(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_FALSE(request->want_text);
  EXPECT_TRUE(request->want_token_ids && request->want_finish_reason);
  ModelInferRequest embedding = TextRequest();
  AddOutput(embedding, "embedding");
  EXPECT_TRUE(Decode(embedding)->want_embedding);
  EXPECT_EQ(Errors(embedding, /*streaming=*/true), "outputs.embedding: is not streamed; use ModelInfer\n");
  AddOutput(embedding, "text_output");
  EXPECT_THAT(Errors(embedding), StartsWith("outputs.embedding: must be the only output"));
}

TEST(OipDecode, OnlyVersionOneExists) {
  ModelInferRequest message = TextRequest();
  message.set_model_version("1");
  EXPECT_THAT(Decode(message), IsOk());
  message.set_model_version("2");
  EXPECT_THAT(Decode(message), StatusIs(absl::StatusCode::kNotFound,
                                        AllOf(HasSubstr("no version \"2\""), HasSubstr("only version is 1"))));
}

class OipToRequest : public testing::Test {
 protected:
  absl::StatusOr<InferenceRequest> Convert(const ModelInferRequest& message) {
    const auto decoded = Decode(message);
    if (!decoded.ok()) return decoded.status();
    return ToInferenceRequest(*decoded, call_, FieldLimits());
  }

  CallContext call_{.request_id = "call", .arrival = MonoTime(std::chrono::seconds(100))};
};

TEST_F(OipToRequest, SaysWhatTheNativeApiWouldSay) {
  ModelInferRequest message = TextRequest();
  Parameter(message, "priority").set_uint64_param(2);
  Parameter(message, "temperature").set_double_param(0.0);
  const auto request = Convert(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->door, "oip");
  EXPECT_EQ(request->request_id, "call");
  EXPECT_EQ(request->model, "smol");
  EXPECT_EQ(std::get<std::string>(request->input), "Hello");
  EXPECT_EQ(request->qos_class, qos::QosClass::kInteractive);
  EXPECT_EQ(request->sampling.temperature, 0.0F);
  EXPECT_EQ(request->deadline, kInfiniteFuture);
}

TEST_F(OipToRequest, TimeoutShortensTheDeadlineAndNeverLengthensIt) {
  ModelInferRequest message = TextRequest();
  Parameter(message, "timeout").set_int64_param(2'000'000);
  EXPECT_EQ(Convert(message)->deadline, MonoTime(std::chrono::seconds(102)));
  call_.deadline = MonoTime(std::chrono::seconds(101));
  EXPECT_EQ(Convert(message)->deadline, call_.deadline);
  Parameter(message, "timeout").set_int64_param(1);
  EXPECT_EQ(Convert(message)->deadline, call_.arrival + std::chrono::microseconds(1));
  Parameter(message, "timeout").set_int64_param(0);
  EXPECT_EQ(Convert(message)->deadline, call_.deadline);
}

TEST_F(OipToRequest, RangesAreViolatedUnderThisProtocolsNames) {
  ModelInferRequest message = TextRequest("");
  message.set_model_name(std::string(129, 'm'));
  Parameter(message, "temperature").set_double_param(3.5);
  Parameter(message, "max_tokens").set_int64_param(0);
  Parameter(message, "sequence_id").set_string_param(std::string(129, 's'));
  Parameter(message, "user").set_string_param(std::string(129, 'u'));
  const auto request = Convert(message);
  ASSERT_THAT(request, StatusIs(absl::StatusCode::kInvalidArgument));
  const std::string errors = Violations(WithOipFields(request.status()));
  for (const char* field : {"text_input: ", "model_name: ", "\ntemperature: got 3.5", "\nmax_tokens: got 0",
                            "parameters.sequence_id: ", "parameters.user: "}) {
    EXPECT_THAT(errors, HasSubstr(field));
  }
}

}  // namespace
}  // namespace sluice::services
