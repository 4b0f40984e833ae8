#include "services/grpc/request_codec.h"

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

constexpr MonoTime kArrival{std::chrono::seconds(1000)};

CallContext Call() {
  CallContext call;
  call.request_id = "from-header";
  call.arrival = kArrival;
  return call;
}

v1::GenerateRequest Valid() {
  v1::GenerateRequest message;
  message.set_prompt("hello");
  return message;
}

// Field → description of everything that is wrong; empty when nothing is.
using Faults = std::map<std::string, std::string>;
Faults FaultsOf(const absl::Status& status) {
  if (status.ok()) return {};
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  Faults faults;
  for (const FieldViolation& v : GetErrorDetails(status).violations) {
    EXPECT_TRUE(faults.emplace(v.field, v.description).second) << v.field << " is named twice";
  }
  return faults;
}
Faults FaultsOf(const v1::GenerateRequest& message, const CallContext& call = Call()) {
  return FaultsOf(DecodeGenerate(message, call, {}).status());
}

InferenceRequest Decoded(const v1::GenerateRequest& message, const CallContext& call = Call()) {
  auto request = DecodeGenerate(message, call, {});
  EXPECT_THAT(request, IsOk());
  return request.ok() ? *std::move(request) : InferenceRequest{};
}

TEST(RequestCodecTest, DefaultsAreThoseOfTheProto) {
  const InferenceRequest request = Decoded(Valid());
  EXPECT_EQ(request.request_id, "from-header");
  EXPECT_EQ(request.door, "grpc");
  EXPECT_EQ(request.model, "");
  EXPECT_EQ(std::get<std::string>(request.input), "hello");
  EXPECT_FALSE(request.max_tokens.has_value());
  EXPECT_EQ(request.qos_class, qos::QosClass::kStandard);
  EXPECT_EQ(request.arrival, kArrival);
  EXPECT_EQ(request.deadline, kInfiniteFuture);
  EXPECT_FLOAT_EQ(request.sampling.temperature, 0.8F);
  EXPECT_FLOAT_EQ(request.sampling.top_p, 0.95F);
  EXPECT_EQ(request.sampling.top_k, 40);
  EXPECT_FLOAT_EQ(request.sampling.min_p, 0.05F);
  EXPECT_FLOAT_EQ(request.sampling.repetition_penalty, 1.0F);
  EXPECT_FLOAT_EQ(request.sampling.presence_penalty, 0.0F);
  EXPECT_FLOAT_EQ(request.sampling.frequency_penalty, 0.0F);
  EXPECT_FALSE(request.sampling.seed.has_value());
  EXPECT_FALSE(request.sampling.want_logprobs);
}

TEST(RequestCodecTest, ZeroThatWasSetIsNotADefault) {
  v1::GenerateRequest message = Valid();
  message.mutable_sampling()->set_temperature(0);
  message.mutable_sampling()->set_top_k(0);
  message.mutable_sampling()->set_min_p(0);
  message.mutable_sampling()->set_seed(0);
  message.mutable_sampling()->set_logprobs(0);
  const engine::SamplingParams s = Decoded(message).sampling;
  EXPECT_EQ(s.temperature, 0.0F);
  EXPECT_EQ(s.top_k, 0);
  EXPECT_EQ(s.min_p, 0.0F);
  EXPECT_EQ(s.seed, 0u);
  EXPECT_TRUE(s.want_logprobs);
  EXPECT_EQ(s.logprobs, 0);
}

TEST(RequestCodecTest, EveryViolationIsNamedAtOnce) {
  v1::GenerateRequest message;
  message.mutable_sampling()->set_temperature(3.5F);
  message.mutable_sampling()->set_top_p(0);
  message.mutable_sampling()->set_logprobs(21);
  message.set_max_tokens(0);
  message.add_stop("");
  message.set_priority_class(static_cast<v1::PriorityClass>(9));
  message.set_tenant(std::string(129, 't'));
  message.set_user(std::string(129, 'u'));
  message.set_conversation(std::string(129, 'c'));
  message.set_request_id(std::string(129, 'r'));
  message.set_model(std::string(129, 'm'));
  message.set_deadline_ms(-1);
  EXPECT_THAT(
      FaultsOf(message),
      UnorderedElementsAre(
          Pair("input", "not set; one of prompt, chat, token_ids is needed"),
          Pair("sampling.temperature", "got 3.5; allowed 0 to 2"),
          Pair("sampling.top_p", "got 0; allowed above 0 to 1"), Pair("sampling.logprobs", "got 21; allowed 0 to 20"),
          Pair("max_tokens", HasSubstr("got 0; allowed 1 to")), Pair("stop[0]", "got 0 bytes; allowed 1 to 256"),
          Pair("priority_class", AllOf(HasSubstr("got 9"), HasSubstr("interactive"))),
          Pair("tenant", "got 129 bytes; allowed up to 128"), Pair("user", "got 129 bytes; allowed up to 128"),
          Pair("conversation", "got 129 bytes; allowed up to 128"),
          Pair("request_id", "got 129 bytes; allowed up to 128"), Pair("model", "got 129 bytes; allowed up to 128"),
          Pair("deadline_ms", "got -1; allowed 0 to 86400000")));
}

TEST(RequestCodecTest, IdsOfTheLimitPass) {
  v1::GenerateRequest message = Valid();
  for (std::string* id : {message.mutable_tenant(), message.mutable_user(), message.mutable_conversation(),
                          message.mutable_request_id(), message.mutable_model()}) {
    *id = std::string(128, 'x');
  }
  EXPECT_THAT(FaultsOf(message), IsEmpty());
}

struct SamplingCase {
  const char* field;
  std::function<void(v1::Sampling&, float)> set;
  std::vector<float> good, bad;
};

TEST(RequestCodecTest, SamplingRanges) {
  const float inf = std::numeric_limits<float>::infinity();
  const SamplingCase cases[] = {
      {"temperature", [](auto& s, float v) { s.set_temperature(v); }, {0, 2}, {-0.01F, 2.01F}},
      {"top_p", [](auto& s, float v) { s.set_top_p(v); }, {1e-30F, 1}, {0, -1, 1.001F}},
      {"min_p", [](auto& s, float v) { s.set_min_p(v); }, {0, 0.999F, std::nextafter(1.0F, 0.0F)}, {-0.1F, 1}},
      {"repetition_penalty", [](auto& s, float v) { s.set_repetition_penalty(v); }, {0.001F, 2}, {0, 2.01F}},
      {"presence_penalty", [](auto& s, float v) { s.set_presence_penalty(v); }, {-2, 2}, {-2.01F, 2.01F}},
      {"frequency_penalty", [](auto& s, float v) { s.set_frequency_penalty(v); }, {-2, 2}, {-2.01F, 2.01F}},
  };
  for (const SamplingCase& c : cases) {
    const std::string field = std::string("sampling.") + c.field;
    for (const float good : c.good) {
      v1::GenerateRequest message = Valid();
      c.set(*message.mutable_sampling(), good);
      EXPECT_THAT(FaultsOf(message), IsEmpty()) << field << " = " << good;
    }
    std::vector<float> bad = c.bad;
    bad.insert(bad.end(), {inf, -inf, std::nanf("")});
    for (const float value : bad) {
      v1::GenerateRequest message = Valid();
      c.set(*message.mutable_sampling(), value);
      EXPECT_THAT(FaultsOf(message), ElementsAre(Key(field))) << field << " = " << value;
    }
  }
}

TEST(RequestCodecTest, IntegerRanges) {
  v1::GenerateRequest message = Valid();
  message.mutable_sampling()->set_top_k(-1);
  message.mutable_sampling()->set_logprobs(-1);
  message.set_deadline_ms(86'400'001);
  EXPECT_THAT(FaultsOf(message), UnorderedElementsAre(Key("sampling.top_k"), Key("sampling.logprobs"),
                                                      Pair("deadline_ms", "got 86400001; allowed 0 to 86400000")));
  message.mutable_sampling()->set_top_k(0);
  message.mutable_sampling()->set_logprobs(20);
  message.set_deadline_ms(86'400'000);
  message.set_max_tokens(1);
  EXPECT_THAT(FaultsOf(message), IsEmpty());
}

TEST(RequestCodecTest, Prompt) {
  v1::GenerateRequest message;
  message.set_prompt("");
  EXPECT_THAT(FaultsOf(message), ElementsAre(Pair("prompt", HasSubstr("empty"))));
  message.set_prompt("ok \xC3");
  EXPECT_THAT(FaultsOf(message), ElementsAre(Pair("prompt", "not valid UTF-8")));
}

TEST(RequestCodecTest, TokenIds) {
  v1::GenerateRequest message;
  message.mutable_token_ids();
  EXPECT_THAT(FaultsOf(message), ElementsAre(Key("token_ids")));
  for (int i = 0; i < 100; ++i) message.mutable_token_ids()->add_ids(i % 2 == 0 ? 5 : -i);
  const Faults faults = FaultsOf(message);
  EXPECT_THAT(faults, SizeIs(8));  // the first few
  EXPECT_THAT(faults, Contains(Pair("token_ids.ids[1]", HasSubstr("got -1"))));
  message.mutable_token_ids()->clear_ids();
  message.mutable_token_ids()->add_ids(7);
  EXPECT_THAT(std::get<std::vector<engine::TokenId>>(Decoded(message).input), ElementsAre(7));
}

TEST(RequestCodecTest, Chat) {
  v1::GenerateRequest message;
  message.mutable_chat();
  EXPECT_THAT(FaultsOf(message), ElementsAre(Pair("chat.messages", "got 0; allowed 1 to 1024")));
  for (const char* role : {"system", "user", "assistant", "tool"})
    message.mutable_chat()->add_messages()->set_role(role);
  message.mutable_chat()->mutable_messages(1)->set_content("hi");
  const auto chat = std::get<std::vector<engine::ChatMessage>>(Decoded(message).input);
  ASSERT_THAT(chat, SizeIs(4));
  EXPECT_EQ(chat[1].role, "user");
  EXPECT_EQ(chat[1].content, "hi");

  message.mutable_chat()->mutable_messages(2)->set_role("User");
  message.mutable_chat()->mutable_messages(3)->set_role(std::string(5000, 'r'));
  message.mutable_chat()->mutable_messages(0)->set_content("\xFF");
  EXPECT_THAT(FaultsOf(message),
              UnorderedElementsAre(
                  Pair("chat.messages[0].content", "not valid UTF-8"),
                  Pair("chat.messages[2].role", "got \"User\"; allowed system, user, assistant, tool"),
                  Pair("chat.messages[3].role", AllOf(HasSubstr("(5000 bytes)"), testing::SizeIs(testing::Lt(120u))))));
}

TEST(RequestCodecTest, ChatOfTooManyMessages) {
  v1::GenerateRequest message;
  for (int i = 0; i < 1024; ++i) message.mutable_chat()->add_messages()->set_role("user");
  EXPECT_THAT(FaultsOf(message), IsEmpty());
  message.mutable_chat()->add_messages()->set_role("user");
  EXPECT_THAT(FaultsOf(message), ElementsAre(Pair("chat.messages", "got 1025; allowed 1 to 1024")));
}

TEST(RequestCodecTest, StopStrings) {
  v1::GenerateRequest message = Valid();
  for (int i = 0; i < 15; ++i) message.add_stop("s");
  message.add_stop(std::string(256, 'x'));
  EXPECT_THAT(Decoded(message).stop_strings, SizeIs(16));
  *message.mutable_stop(3) = std::string(257, 'x');
  *message.mutable_stop(4) = "\x80";
  EXPECT_THAT(FaultsOf(message), UnorderedElementsAre(Pair("stop[3]", "got 257 bytes; allowed 1 to 256"),
                                                      Pair("stop[4]", "not valid UTF-8")));
  message.add_stop("one too many");
  EXPECT_THAT(FaultsOf(message), ElementsAre(Pair("stop", "got 17; allowed 0 to 16")));
}

TEST(RequestCodecTest, HeadersStandInForEmptyFields) {
  CallContext call = Call();
  call.headers = {{"x-sluice-class", "batch"}, {"x-sluice-tenant", "acme"}, {"x-session-id", "s-1"}};
  InferenceRequest request = Decoded(Valid(), call);
  EXPECT_EQ(request.qos_class, qos::QosClass::kBatch);
  EXPECT_EQ(request.tenant, "acme");
  EXPECT_EQ(request.conversation, "s-1");

  v1::GenerateRequest message = Valid();
  message.set_priority_class(v1::PRIORITY_CLASS_INTERACTIVE);
  message.set_tenant("field");
  message.set_conversation("field-c");
  message.set_request_id("field-r");
  request = Decoded(message, call);
  EXPECT_EQ(request.qos_class, qos::QosClass::kInteractive);
  EXPECT_EQ(request.tenant, "field");
  EXPECT_EQ(request.conversation, "field-c");
  EXPECT_EQ(request.request_id, "field-r");
}

TEST(RequestCodecTest, HeadersAreCheckedUnderTheirOwnName) {
  CallContext call = Call();
  call.headers = {{"x-sluice-class", "gold"}, {"x-sluice-tenant", std::string(129, 't')}};
  EXPECT_THAT(
      FaultsOf(Valid(), call),
      UnorderedElementsAre(Pair("header x-sluice-class", "got \"gold\"; allowed system, interactive, standard, batch"),
                           Pair("header x-sluice-tenant", "got 129 bytes; allowed up to 128")));
  // A field that wins also hides what is wrong with the header.
  v1::GenerateRequest message = Valid();
  message.set_priority_class(v1::PRIORITY_CLASS_STANDARD);
  message.set_tenant("t");
  EXPECT_THAT(FaultsOf(message, call), IsEmpty());
}

TEST(RequestCodecTest, RequestIdGoesIntoTrailersAndMustBePrintable) {
  v1::GenerateRequest message = Valid();
  message.set_request_id("a\r\nb");
  EXPECT_THAT(FaultsOf(message), ElementsAre(Pair("request_id", HasSubstr("printable"))));
  message.set_request_id("\xC3\xA9");
  EXPECT_THAT(FaultsOf(message), ElementsAre(Key("request_id")));
}

TEST(RequestCodecTest, TheEarlierDeadlineHolds) {
  v1::GenerateRequest message = Valid();
  CallContext call = Call();
  message.set_deadline_ms(500);
  EXPECT_EQ(Decoded(message, call).deadline, kArrival + milliseconds(500));
  call.deadline = kArrival + milliseconds(400);
  EXPECT_EQ(Decoded(message, call).deadline, kArrival + milliseconds(400));
  call.deadline = kArrival + milliseconds(600);
  EXPECT_EQ(Decoded(message, call).deadline, kArrival + milliseconds(500));
  message.set_deadline_ms(0);
  EXPECT_EQ(Decoded(message, call).deadline, kArrival + milliseconds(600));
}

TEST(RequestCodecTest, Embed) {
  v1::EmbedRequest message;
  EXPECT_THAT(FaultsOf(DecodeEmbed(message, Call(), {}).status()),
              ElementsAre(Pair("input", "got 0; allowed 1 to 256")));
  message.add_input("a");
  message.add_input("");
  message.add_input("\xF0\x9F");
  EXPECT_THAT(FaultsOf(DecodeEmbed(message, Call(), {}).status()),
              UnorderedElementsAre(Pair("input[1]", HasSubstr("empty")), Pair("input[2]", "not valid UTF-8")));
  message.mutable_input()->DeleteSubrange(1, 2);
  message.set_model("m");
  const auto decoded = DecodeEmbed(message, Call(), {});
  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(decoded->inputs, ElementsAre("a"));
  EXPECT_EQ(decoded->request.model, "m");
  EXPECT_EQ(decoded->request.request_id, "from-header");
  while (message.input_size() < 257) message.add_input("x");
  EXPECT_THAT(FaultsOf(DecodeEmbed(message, Call(), {}).status()), ElementsAre(Key("input")));
}

TEST(RequestCodecTest, TokenizeAndDetokenize) {
  v1::TokenizeRequest tokenize;
  EXPECT_THAT(FaultsOf(CheckTokenize(tokenize, {})), ElementsAre(Key("input")));
  tokenize.set_text("\xFF");
  tokenize.set_model(std::string(129, 'm'));
  EXPECT_THAT(FaultsOf(CheckTokenize(tokenize, {})), UnorderedElementsAre(Key("text"), Key("model")));
  tokenize.set_text("");
  tokenize.clear_model();
  EXPECT_THAT(CheckTokenize(tokenize, {}), IsOk());

  v1::DetokenizeRequest detokenize;
  for (const int id : {0, 99, 100, -1}) detokenize.add_token_ids(id);
  EXPECT_THAT(FaultsOf(CheckDetokenize(detokenize, /*vocab_size=*/100)),
              UnorderedElementsAre(Pair("token_ids[2]", "got 100; allowed 0 to 99"),
                                   Pair("token_ids[3]", "got -1; allowed 0 to 99")));
}

// Pieces "t<id>"; 200 is half a character.
class FakeTokenizer final : public engine::Tokenizer {
 public:
  absl::StatusOr<std::vector<engine::TokenId>> Tokenize(std::string_view, bool, bool) const override {
    return absl::UnimplementedError("");
  }
  std::string Piece(engine::TokenId token, bool) const override {
    return token == 200 ? "\xC3" : "t" + std::to_string(token);
  }
  bool IsEndOfGeneration(engine::TokenId) const override { return false; }
  absl::StatusOr<std::string> ApplyChatTemplate(const std::vector<engine::ChatMessage>&) const override {
    return absl::UnimplementedError("");
  }
  bool has_chat_template() const override { return false; }
  int vocab_size() const override { return 256; }
};

TEST(RequestCodecTest, TokensOfABatchGoIntoOneMessage) {
  engine::TokenStream::Batch batch;
  batch.tokens.push_back({{.token = 1, .logprob = -0.5F, .top = {{.token = 2, .logprob = -0.25F}}}, "he"});
  batch.tokens.push_back({{.token = 200, .logprob = -1.0F}, "llo"});
  batch.tail_text = "!";
  v1::GenerateResponse response;
  EncodeTokens(batch, {}, FakeTokenizer(), response);
  EXPECT_EQ(response.text(), "hello!");
  EXPECT_THAT(response.token_ids(), IsEmpty());
  EXPECT_THAT(response.logprobs(), IsEmpty());
  EXPECT_FALSE(response.has_finish());

  response.Clear();
  EncodeTokens(batch, {.token_ids = true, .logprobs = true}, FakeTokenizer(), response);
  EXPECT_THAT(response.token_ids(), ElementsAre(1, 200));
  ASSERT_THAT(response.logprobs(), SizeIs(2));
  EXPECT_EQ(response.logprobs(0).token(), "t1");
  EXPECT_EQ(response.logprobs(0).logprob(), -0.5F);
  ASSERT_THAT(response.logprobs(0).top(), SizeIs(1));
  EXPECT_EQ(response.logprobs(0).top(0).token_id(), 2);
  EXPECT_EQ(response.logprobs(1).token(), "\xEF\xBF\xBD");  // a proto string must be UTF-8
}

TEST(RequestCodecTest, FinishTellsUsageAndTimings) {
  engine::GenerationSummary summary{.reason = engine::FinishReason::kStop,
                                    .stop_string = "END",
                                    .prompt_tokens = 10,
                                    .cached_tokens = 4,
                                    .output_tokens = 5,
                                    .queue_wait = milliseconds(3),
                                    .prefill = milliseconds(7),
                                    .ttft = milliseconds(10),
                                    .decode = milliseconds(200)};
  v1::Finish finish;
  EncodeFinish(summary, {.request_id = "r", .model = "m", .pipeline = "ttft"}, finish);
  EXPECT_EQ(finish.reason(), "stop");
  EXPECT_EQ(finish.stop(), "END");
  EXPECT_EQ(finish.usage().prompt_tokens(), 10);
  EXPECT_EQ(finish.usage().cached_tokens(), 4);
  EXPECT_EQ(finish.usage().output_tokens(), 5);
  EXPECT_DOUBLE_EQ(finish.timings().queue_wait_ms(), 3);
  EXPECT_DOUBLE_EQ(finish.timings().prefill_ms(), 7);
  EXPECT_DOUBLE_EQ(finish.timings().ttft_ms(), 10);
  EXPECT_DOUBLE_EQ(finish.timings().total_ms(), 210);
  EXPECT_DOUBLE_EQ(finish.timings().tokens_per_second(), 20);  // 4 tokens after the first, in 0.2 s
  EXPECT_EQ(finish.model(), "m");
  EXPECT_EQ(finish.pipeline(), "ttft");
  EXPECT_EQ(finish.request_id(), "r");

  summary.output_tokens = 1;
  summary.decode = Duration::zero();
  finish.Clear();
  EncodeFinish(summary, {}, finish);
  EXPECT_EQ(finish.timings().tokens_per_second(), 0);
}

TEST(RequestCodecTest, ModelsShowWhyTheyFailed) {
  engine::ModelInfo info;
  info.spec.name = "broken";
  info.spec.path = "/models/broken.gguf";
  info.state = engine::ModelState::kFailed;
  info.error = absl::InvalidArgumentError("truncated file");
  v1::Model model;
  EncodeModel(info, model);
  EXPECT_EQ(model.state(), "failed");
  EXPECT_EQ(model.error(), "truncated file");
  EXPECT_EQ(model.backend(), "llama");
  EXPECT_EQ(model.vocab_size(), 0);
  info.spec.path = "synthetic:";
  info.facts = engine::ModelFacts{.weight_bytes = 7, .vocab_size = 512};
  model.Clear();
  EncodeModel(info, model);
  EXPECT_EQ(model.backend(), "synthetic");
  EXPECT_EQ(model.vocab_size(), 512);
  EXPECT_EQ(model.weight_bytes(), 7u);
}

}  // namespace
}  // namespace sluice::services
