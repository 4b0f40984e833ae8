#include "loadtest/openai_check.h"

#include <atomic>
#include <fstream>

#include "gmock/gmock.h"
#include "loadtest/event_loop.h"
#include "loadtest/openai_target.h"
#include "tests/support/fake_http_server.h"
#include "tests/support/status_matchers.h"

namespace sluice::loadtest {
namespace {

using absl::StatusCode;
using test::FakeHttpServer;
using test::HttpPeer;
using test::HttpRequest;
using test::IsOk;
using test::StatusIs;
using testing::AllOf;
using testing::HasSubstr;

constexpr Duration kLong = std::chrono::seconds(30), kShort = std::chrono::milliseconds(250);
const char kModels[] = R"({"object":"list","data":[{"id":"small"},{"id":"large"}]})";

absl::Status Check(const TargetOptions& options, Duration timeout, const std::atomic<bool>& stop = false) {
  const SystemClock clock;
  EventLoop loop(clock);
  return MakeOpenAiTarget(options, loop, clock, clock.Now())->Check(timeout, stop);
}

void AnswerModels(const HttpRequest& request, HttpPeer& peer) {
  if (request.path == "/v1/models") {
    peer.Answer(200, kModels);
  } else {
    peer.Answer(404, "no such page", "text/plain");
  }
}

TEST(OpenAiCheck, RootOfTheUrl) {
  EXPECT_EQ(OpenAiRoot("http://h:1"), "http://h:1");
  EXPECT_EQ(OpenAiRoot("http://h:1/"), "http://h:1");
  EXPECT_EQ(OpenAiRoot("http://h:1/v1/"), "http://h:1");
  EXPECT_EQ(OpenAiRoot("https://h/base/v1"), "https://h/base");
}

TEST(OpenAiCheck, ModelsAreKnownByName) {
  FakeHttpServer server(AnswerModels);
  EXPECT_THAT(Check({.url = server.url()}, kLong), IsOk());
  EXPECT_THAT(Check({.url = server.url() + "/v1", .model = "large"}, kLong), IsOk());
  EXPECT_THAT(Check({.url = server.url(), .model = "huge"}, kLong),
              StatusIs(StatusCode::kNotFound, AllOf(HasSubstr("'huge'"), HasSubstr("small, large"))));
}

TEST(OpenAiCheck, TokensThatAreRefused) {
  FakeHttpServer server([](const HttpRequest& request, HttpPeer& peer) {
    const auto it = request.headers.find("authorization");
    if (it == request.headers.end() || it->second == "Bearer wrong") {
      peer.Answer(401, R"({"error":{"message":"Invalid API key"}})");
    } else if (it->second == "Bearer poor") {
      peer.Answer(403, "{}");
    } else {
      AnswerModels(request, peer);
    }
  });
  EXPECT_THAT(Check({.url = server.url()}, kLong), StatusIs(StatusCode::kUnauthenticated, HasSubstr("wants a token")));
  EXPECT_THAT(Check({.url = server.url(), .token = "wrong"}, kLong),
              StatusIs(StatusCode::kUnauthenticated, AllOf(HasSubstr("refuses"), HasSubstr("Invalid API key"))));
  EXPECT_THAT(Check({.url = server.url(), .token = "poor"}, kLong), StatusIs(StatusCode::kPermissionDenied));
  EXPECT_THAT(Check({.url = server.url(), .token = "right"}, kLong), IsOk());
}

TEST(OpenAiCheck, WaitsWhileTheModelLoads) {
  std::atomic<int> asked{0};
  FakeHttpServer server([&](const HttpRequest& request, HttpPeer& peer) {
    if (++asked < 4) return (void)peer.Answer(503, R"({"error":{"message":"Loading model"}})");
    AnswerModels(request, peer);
  });
  EXPECT_THAT(Check({.url = server.url()}, kLong), IsOk());
  EXPECT_EQ(asked, 5);
}

TEST(OpenAiCheck, GivesUpOnAServerThatNeverGetsReady) {
  FakeHttpServer server(
      [](const HttpRequest&, HttpPeer& peer) { peer.Answer(503, R"({"error":{"message":"Loading model"}})"); });
  EXPECT_THAT(Check({.url = server.url()}, kShort),
              StatusIs(StatusCode::kUnavailable, AllOf(HasSubstr("is not ready"), HasSubstr("Loading model"))));
}

TEST(OpenAiCheck, NobodyListens) {
  std::string url = FakeHttpServer([](const HttpRequest&, HttpPeer&) {}).url();
  const SystemClock clock;
  const MonoTime begin = clock.Now();
  EXPECT_THAT(Check({.url = url}, kLong),
              StatusIs(StatusCode::kUnavailable, HasSubstr("is a server listening there?")));
  EXPECT_LT(clock.Now() - begin, kLong / 3);  // said at once
}

TEST(OpenAiCheck, AServerThatIsSilentOrLoadsForEverCanBeInterrupted) {
  for (const bool silent : {true, false}) {
    std::atomic<bool> stop = false;
    FakeHttpServer server([&](const HttpRequest&, HttpPeer& peer) {
      stop = true;
      silent ? peer.WaitUntilClosed() : (void)peer.Answer(503, "{}");
    });
    EXPECT_THAT(Check({.url = server.url()}, std::chrono::hours(1), stop), StatusIs(StatusCode::kCancelled));
  }
}

TEST(OpenAiCheck, WhatIsNoSuchServerIsSaidAtOnce) {
  FakeHttpServer other([](const HttpRequest&, HttpPeer& peer) { peer.Answer(404, "not here", "text/plain"); });
  EXPECT_THAT(Check({.url = other.url()}, kLong),
              StatusIs(StatusCode::kUnavailable, AllOf(HasSubstr("no OpenAI-compatible server"), HasSubstr("404"))));
  FakeHttpServer html([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, "<html>", "text/html"); });
  EXPECT_THAT(Check({.url = html.url()}, kLong), StatusIs(StatusCode::kUnavailable, HasSubstr("no list of models")));
  FakeHttpServer binary([](const HttpRequest&, HttpPeer& peer) {
    peer.Send(std::string_view("\0\0\x12\4\0\0\0\0\0", 9));  // as a gRPC server begins
    peer.Close();
  });
  EXPECT_THAT(Check({.url = binary.url()}, kLong), StatusIs(StatusCode::kUnavailable, HasSubstr("HTTP/1.1")));
}

TEST(OpenAiCheck, TlsWhereNoneIsSpoken) {
  FakeHttpServer server(AnswerModels);
  EXPECT_THAT(Check({.url = "https://127.0.0.1:" + std::to_string(server.port())}, kLong),
              StatusIs(StatusCode::kUnavailable, HasSubstr("TLS")));
}

TEST(OpenAiCheck, TlsWithTheRightCaOnly) {
  const test::TestCertificate right("right"), wrong("wrong");
  const std::string folder = testing::TempDir();
  const auto file = [&](const char* name, const test::TestCertificate& certificate) {
    std::string path = folder + name;
    std::ofstream(path) << certificate.CertificatePem();
    return path;
  };
  FakeHttpServer server(AnswerModels, &right);
  const std::string port = std::to_string(server.port()), url = "https://localhost:" + port;
  EXPECT_THAT(Check({.url = url, .ca_file = file("sluice-right-ca.pem", right)}, kLong), IsOk());
  EXPECT_THAT(Check({.url = url, .ca_file = file("sluice-wrong-ca.pem", wrong)}, kLong),
              StatusIs(StatusCode::kUnavailable, HasSubstr("TLS")));
  EXPECT_THAT(Check({.url = url, .ca_file = folder + "sluice-no-ca.pem"}, kLong),
              StatusIs(StatusCode::kUnavailable, HasSubstr("TLS")));
  EXPECT_THAT(Check({.url = "https://127.0.0.1:" + port, .ca_file = folder + "sluice-right-ca.pem"}, kLong),
              StatusIs(StatusCode::kUnavailable, HasSubstr("TLS")));  // the certificate is for another name
}

TEST(OpenAiCheck, BodiesToMergeMustBeObjects) {
  FakeHttpServer server(AnswerModels);
  EXPECT_THAT(Check({.url = server.url(), .body_json = "[1"}, kLong), StatusIs(StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace sluice::loadtest
