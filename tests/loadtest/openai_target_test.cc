#include "loadtest/openai_target.h"

#include <fstream>
#include <random>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "loadtest/event_loop.h"
#include "nlohmann/json.hpp"
#include "tests/loadtest/send_request.h"
#include "tests/support/fake_http_server.h"
#include "tests/support/status_matchers.h"

namespace sluice::loadtest {
namespace {

using test::FakeHttpServer;
using test::HttpPeer;
using test::HttpRequest;
using test::Send;
using testing::HasSubstr;
using Json = nlohmann::json;

std::string TextChunk(const std::string& text) {
  return Json{{"choices", {{{"index", 0}, {"text", text}, {"finish_reason", nullptr}}}}}.dump();
}
std::string DeltaChunk(const Json& delta) {
  return Json{{"choices", {{{"index", 0}, {"delta", delta}, {"finish_reason", nullptr}}}}}.dump();
}
const char kFinish[] = R"({"choices":[{"index":0,"text":"","finish_reason":"length"}]})";

void AnswerWith(HttpPeer& peer, const std::vector<std::string>& texts) {
  peer.BeginStream();
  for (const std::string& text : texts) peer.Event(TextChunk(text));
  peer.Event(kFinish);
  peer.Event("[DONE]");
  peer.EndStream();
}

class OpenAiTargetTest : public testing::Test {
 protected:
  void Serve(FakeHttpServer::Handler handler) {
    server_ = std::make_unique<FakeHttpServer>(std::move(handler));
    options_.url = server_->url();
    Connect();
  }
  void Connect() { target_ = MakeOpenAiTarget(options_, loop_, clock_, clock_.Now()); }
  Record Ask(Request request = {.id = "r1", .prompt = "hello", .keep_text = true}) {
    return Send(*target_, std::move(request));
  }

  SystemClock clock_;
  EventLoop loop_{clock_};
  TargetOptions options_;
  std::unique_ptr<FakeHttpServer> server_;
  std::unique_ptr<Target> target_;
};

TEST_F(OpenAiTargetTest, AStreamBecomesARecord) {
  Serve([](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    peer.Event(TextChunk(""));  // half a character: no text yet
    peer.Event(TextChunk("one"));
    peer.Chunk(": keep-alive\n\n");
    peer.Event(TextChunk(" two"));
    peer.Event(kFinish);
    peer.Event(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,)"
               R"("prompt_tokens_details":{"cached_tokens":4}}})");
    peer.Event("[DONE]");
    peer.EndStream();
  });
  const Record record = Ask();
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text, "one two");
  EXPECT_EQ(record.token_ns.size(), 2u);
  EXPECT_EQ(record.finish_reason, "length");
  EXPECT_EQ(record.prompt_tokens, 7);
  EXPECT_EQ(record.output_tokens, 2);
  EXPECT_EQ(record.cached_tokens, 4);
  test::ExpectOrderedTimes(record);
}

TEST_F(OpenAiTargetTest, TheRequestIsAsTheApiWantsIt) {
  options_.token = "secret";
  options_.model = "small";
  options_.headers = {{"x-extra", "1"}};
  options_.body_json = R"({"cache_prompt": false, "ignore_eos": null, "stream_options": {"more": 1}})";
  Serve([](const HttpRequest&, HttpPeer& peer) { AnswerWith(peer, {"x"}); });
  Ask({.id = "id-7",
       .token_ids = {1, 2, 3},
       .max_tokens = 5,
       .temperature = 0.5,
       .seed = 18446744073709551615u,
       .tenant = "acme",
       .user = "ann",
       .conversation = "c9",
       .priority_class = "batch"});
  const HttpRequest request = server_->requests().at(0);
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/v1/completions");
  const std::map<std::string, std::string> expected = {{"authorization", "Bearer secret"},
                                                       {"content-type", "application/json"},
                                                       {"x-request-id", "id-7"},
                                                       {"x-extra", "1"},
                                                       {"x-sluice-tenant", "acme"},
                                                       {"x-sluice-class", "batch"},
                                                       {"x-session-id", "c9"}};
  for (const auto& [name, value] : expected) EXPECT_EQ(request.headers.at(name), value) << name;
  EXPECT_EQ(Json::parse(request.body), Json::parse(R"({"model": "small", "prompt": [1, 2, 3], "max_tokens": 5,
      "temperature": 0.5, "seed": 18446744073709551615, "stream": true, "user": "ann", "cache_prompt": false,
      "stream_options": {"include_usage": true, "more": 1}})"));
}

TEST_F(OpenAiTargetTest, ChatsGoToTheirOwnPathAndRolesAreNoText) {
  Serve([](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    peer.Event(DeltaChunk({{"role", "assistant"}}));
    peer.Event(DeltaChunk({{"role", "assistant"}, {"content", ""}}));
    peer.Event(DeltaChunk({{"content", nullptr}}));
    peer.Event(DeltaChunk({{"reasoning_content", "hm"}}));
    peer.Event(DeltaChunk({{"reasoning", ", "}}));
    peer.Event(DeltaChunk({{"content", "yes"}}));
    peer.Event(R"({"choices":[{"delta":{},"finish_reason":"stop"}],)"
               R"("timings":{"prompt_n":3,"cache_n":8,"prompt_ms":1.5,"predicted_n":3}})");
    peer.Event("[DONE]");
    peer.EndStream();
  });
  const Record record = Ask({.chat = {{"system", "be brief"}, {"user", "hi"}}, .keep_text = true});
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text, "hm, yes");
  EXPECT_EQ(record.token_ns.size(), 3u);
  EXPECT_EQ(record.finish_reason, "stop");
  EXPECT_EQ(record.prompt_tokens, 11);
  EXPECT_EQ(record.cached_tokens, 8);
  EXPECT_EQ(record.output_tokens, 3);
  EXPECT_EQ(record.server_prefill_ms, 1.5);
  const HttpRequest request = server_->requests().at(0);
  EXPECT_EQ(request.path, "/v1/chat/completions");
  EXPECT_EQ(Json::parse(request.body)["messages"][1], Json({{"role", "user"}, {"content", "hi"}}));
}

TEST_F(OpenAiTargetTest, HttpCodesBecomeGrpcCodes) {
  Serve([](const HttpRequest& request, HttpPeer& peer) {
    peer.Answer(std::stoi(request.headers.at("x-request-id")), R"({"error":{"message":"because","type":"t"}})");
  });
  const std::map<int, absl::StatusCode> codes = {
      {400, absl::StatusCode::kInvalidArgument},   {401, absl::StatusCode::kUnauthenticated},
      {403, absl::StatusCode::kPermissionDenied},  {404, absl::StatusCode::kNotFound},
      {408, absl::StatusCode::kDeadlineExceeded},  {422, absl::StatusCode::kInvalidArgument},
      {429, absl::StatusCode::kResourceExhausted}, {499, absl::StatusCode::kCancelled},
      {500, absl::StatusCode::kInternal},          {502, absl::StatusCode::kInternal},
      {503, absl::StatusCode::kUnavailable},       {504, absl::StatusCode::kDeadlineExceeded}};
  for (const auto& [http, code] : codes) {
    const Record record = Ask({.id = std::to_string(http), .prompt = "x"});
    EXPECT_EQ(record.code, code) << http;
    EXPECT_EQ(record.error, fmt::format("HTTP {}: because", http));
    EXPECT_TRUE(record.token_ns.empty());
  }
  EXPECT_EQ(server_->connections(), 1);  // a refusal keeps the connection
}

TEST_F(OpenAiTargetTest, ARefusalThatIsNoJsonIsShown) {
  Serve([](const HttpRequest&, HttpPeer& peer) { peer.Answer(502, "<html>\nbad gateway", "text/html"); });
  EXPECT_EQ(Ask().error, "HTTP 502: <html> bad gateway");
}

TEST_F(OpenAiTargetTest, AnErrorInTheStreamEndsIt) {
  Serve([](const HttpRequest& request, HttpPeer& peer) {
    peer.BeginStream();
    peer.Event(TextChunk("one"));
    peer.Event(request.headers.at("x-request-id"));
    peer.WaitUntilClosed();
  });
  Record record = Ask({.id = R"({"error":{"code":503,"message":"full"}})", .prompt = "x"});
  EXPECT_EQ(record.code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(record.error, "in the stream: full");
  EXPECT_EQ(record.token_ns.size(), 1u);
  EXPECT_EQ(Ask({.id = R"({"error":"broke"})", .prompt = "x"}).code, absl::StatusCode::kInternal);
  EXPECT_EQ(Ask({.id = R"({"object":"error","message":"m","code":400})", .prompt = "x"}).code,
            absl::StatusCode::kInvalidArgument);
  record = Ask({.id = "{nonsense", .prompt = "x"});
  EXPECT_EQ(record.code, absl::StatusCode::kDataLoss);
  EXPECT_THAT(record.error, HasSubstr("{nonsense"));
}

TEST_F(OpenAiTargetTest, MembersOfWrongTypesDoNotHarm) {
  Serve([](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    for (const char* event : {R"({"choices":{"text":1}})", R"({"choices":[7,null,{"text":[],"delta":"x"}]})",
                              R"({"usage":[1],"timings":7})", R"({"usage":{"prompt_tokens":1e300}})"}) {
      peer.Event(event);
    }
    peer.Event("[DONE]");
    peer.EndStream();
  });
  const Record record = Ask();
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.prompt_tokens, -1);
}

TEST_F(OpenAiTargetTest, ACutStreamIsDataLoss) {
  Serve([](const HttpRequest& request, HttpPeer& peer) {
    peer.BeginStream();
    peer.Event(TextChunk("one"));
    if (request.headers.at("x-request-id") == "cut") return peer.Close();
    peer.EndStream();  // well-formed HTTP, and yet not all of it
  });
  for (const char* how : {"cut", "short"}) {
    const Record record = Ask({.id = how, .prompt = "x"});
    EXPECT_EQ(record.code, absl::StatusCode::kDataLoss) << how << ": " << record.error;
    EXPECT_EQ(record.token_ns.size(), 1u);
  }
}

TEST_F(OpenAiTargetTest, AStreamThatFinishedBeforeItWasCutIsWhole) {
  Serve([](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    peer.Event(TextChunk("one"));
    peer.Event(kFinish);
    peer.Close();
  });
  EXPECT_TRUE(Ask().ok());
}

TEST_F(OpenAiTargetTest, AnAnswerWithoutAStreamIsDataLoss) {
  Serve([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, R"({"choices":[{"text":"all at once"}]})"); });
  const Record record = Ask();
  EXPECT_EQ(record.code, absl::StatusCode::kDataLoss);
  EXPECT_THAT(record.error, HasSubstr("application/json"));
}

TEST_F(OpenAiTargetTest, NoConnectionIsUnavailable) {
  Serve([](const HttpRequest& request, HttpPeer& peer) {
    if (request.headers.at("x-request-id") == "reset") return peer.Reset();
    peer.Close();
  });
  EXPECT_EQ(Ask({.id = "reset", .prompt = "x"}).code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(Ask({.id = "close", .prompt = "x"}).code, absl::StatusCode::kUnavailable);
  server_.reset();  // nobody listens any more
  const Record record = Ask();
  EXPECT_EQ(record.code, absl::StatusCode::kUnavailable);
  EXPECT_THAT(record.error, HasSubstr(options_.url));
  test::ExpectOrderedTimes(record);
}

TEST_F(OpenAiTargetTest, SilenceEndsWithTheTimeout) {
  Serve([](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    peer.Event(TextChunk("one"));
    peer.WaitUntilClosed();
  });
  const Record record = Ask({.prompt = "x", .timeout = std::chrono::milliseconds(80)});
  EXPECT_EQ(record.code, absl::StatusCode::kDeadlineExceeded) << record.error;
  EXPECT_EQ(record.token_ns.size(), 1u);
  EXPECT_GE(record.done_ns, 80'000'000);
}

TEST_F(OpenAiTargetTest, APlannedCancelDropsTheTransfer) {
  std::atomic<int> dropped{0};
  Serve([&](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    for (int i = 0; i < 3; ++i) peer.Event(TextChunk("x"));
    peer.WaitUntilClosed();  // or the test never ends
    ++dropped;
  });
  const Record record = Ask({.prompt = "x", .cancel_after_messages = 2});
  EXPECT_EQ(record.code, absl::StatusCode::kCancelled);
  EXPECT_EQ(record.token_ns.size(), 2u);
  target_.reset();
  server_.reset();  // joins the handler
  EXPECT_EQ(dropped, 1);
}

TEST_F(OpenAiTargetTest, CancelAllEndsWhatRunsAndNothingElse) {
  Serve([](const HttpRequest& request, HttpPeer& peer) {
    if (request.headers.at("x-request-id") == "after") return AnswerWith(peer, {"x"});
    peer.WaitUntilClosed();
  });
  test::Sent sent;
  std::vector<const Record*> before;
  for (int i = 0; i < 5; ++i) before.push_back(&sent.Start(*target_, {.id = "before", .prompt = "x"}));
  target_->CancelAll();
  const Record& after = sent.Start(*target_, {.id = "after", .prompt = "x"});
  sent.Wait();
  for (const Record* record : before) EXPECT_EQ(record->code, absl::StatusCode::kCancelled);
  EXPECT_TRUE(after.ok()) << after.error;
}

TEST_F(OpenAiTargetTest, ASlowReaderPausesAfterEachMessage) {
  Serve([](const HttpRequest&, HttpPeer& peer) { AnswerWith(peer, {"a", "b", "c", "d"}); });
  const Record record = Ask({.prompt = "x", .read_delay = std::chrono::milliseconds(20), .keep_text = true});
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text, "abcd");
  ASSERT_EQ(record.token_ns.size(), 4u);
  for (size_t i = 1; i < 4; ++i) EXPECT_GE(record.token_ns[i] - record.token_ns[i - 1], 20'000'000);
}

TEST_F(OpenAiTargetTest, ASlowReaderOfMuchHoldsTheServerBack) {
  // More than the socket buffers of both ends take, so that the pause is felt at the other end.
  const std::string big(size_t{4} << 20, 'x');
  std::atomic<int64_t> last_sent{0};
  Serve([&](const HttpRequest&, HttpPeer& peer) {
    peer.BeginStream();
    for (int i = 0; i < 6; ++i) peer.Event(TextChunk(big));
    last_sent = clock_.Now().time_since_epoch().count();
    peer.Event(kFinish);
    peer.EndStream();
  });
  const MonoTime begin = clock_.Now();
  const Record record = Ask({.prompt = "x", .read_delay = std::chrono::milliseconds(50), .keep_text = true});
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text.size(), 6 * big.size());
  EXPECT_EQ(record.token_ns.size(), 6u);
  EXPECT_GE(last_sent - begin.time_since_epoch().count(), 100'000'000);
}

TEST_F(OpenAiTargetTest, AHugeEventIsOneMessage) {
  const std::string huge(size_t{8} << 20, 'y');
  Serve([&](const HttpRequest&, HttpPeer& peer) { AnswerWith(peer, {huge, "z"}); });
  const Record record = Ask();
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.token_ns.size(), 2u);
  EXPECT_EQ(record.text, huge + "z");
}

TEST_F(OpenAiTargetTest, ConnectionsAreUsedAgain) {
  Serve([](const HttpRequest&, HttpPeer& peer) { AnswerWith(peer, {"x"}); });
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Ask().ok());
  EXPECT_EQ(server_->connections(), 1);
}

TEST_F(OpenAiTargetTest, ManyStreamsAtOnceInRandomPieces) {
  constexpr uint32_t kSeed = 99;
  SCOPED_TRACE(kSeed);
  Serve([](const HttpRequest& request, HttpPeer& peer) {
    const std::string& id = request.headers.at("x-request-id");
    std::mt19937 random(kSeed + static_cast<uint32_t>(std::stoul(id)));
    std::string stream;
    for (int i = 0; i < 20; ++i) stream += "data: " + TextChunk(id) + "\r\n\r\n";
    stream += "data: " + std::string(kFinish) + "\n\ndata: [DONE]\n\n";
    peer.BeginStream();
    for (size_t at = 0; at < stream.size();) {
      const std::string piece = stream.substr(at, 1 + random() % 200);
      if (!peer.Chunk(piece)) return;
      at += piece.size();
    }
    peer.EndStream();
  });
  test::Sent sent;
  std::vector<const Record*> records;
  for (int i = 0; i < 200; ++i) {
    records.push_back(&sent.Start(*target_, {.id = std::to_string(i), .prompt = "x", .keep_text = true}));
  }
  sent.Wait();
  for (int i = 0; i < 200; ++i) {
    const Record& record = *records[static_cast<size_t>(i)];
    std::string expected;
    for (int n = 0; n < 20; ++n) expected += std::to_string(i);
    EXPECT_TRUE(record.ok()) << record.error;
    EXPECT_EQ(record.text, expected);
    EXPECT_EQ(record.token_ns.size(), 20u);
    test::ExpectOrderedTimes(record);
  }
}

TEST_F(OpenAiTargetTest, StreamsOverTls) {
  const test::TestCertificate certificate("fake");
  options_.ca_file = testing::TempDir() + "sluice-stream-ca.pem";
  std::ofstream(options_.ca_file) << certificate.CertificatePem();
  server_ = std::make_unique<FakeHttpServer>(
      [](const HttpRequest&, HttpPeer& peer) {
        AnswerWith(peer, {"a", std::string(100'000, 'b')});
      },
      &certificate);
  options_.url = "https://localhost:" + std::to_string(server_->port());
  Connect();
  for (const Duration read_delay : {Duration(0), Duration(std::chrono::milliseconds(5))}) {
    const Record record = Ask({.prompt = "x", .read_delay = read_delay, .keep_text = true});
    EXPECT_TRUE(record.ok()) << record.error;
    EXPECT_EQ(record.text.size(), 100'001u);
  }
  EXPECT_EQ(server_->connections(), 1);
}

}  // namespace
}  // namespace sluice::loadtest
