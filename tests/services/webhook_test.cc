#include "services/clients/webhook.h"

#include <atomic>
#include <latch>
#include <thread>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/fake_http_server.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice::services {
namespace {

using Outcome = Webhooks::Outcome;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using test::FakeHttpServer;
using test::HttpPeer;
using test::HttpRequest;

Alert Violated(const std::string& policy = "ttft") {
  return {.policy = policy,
          .metric = "ttft_p95_ms",
          .state = "violated",
          .severity = "warning",
          .value = 900.5,
          .threshold = 550,
          .step = 2,
          .dry_run = true,
          .message = "too slow"};
}

class WebhookTest : public testing::Test {
 protected:
  WebhookOptions To(const std::string& url) {
    return {.name = "ops", .url = url, .initial_backoff = milliseconds(1), .max_backoff = milliseconds(4)};
  }
  void Open(const Clock& clock) {
    webhooks_ = std::make_unique<Webhooks>(
        "server-1", clock, [] { return 0.5; }, metrics_);
  }
  void Start(WebhookOptions options) {
    Open(clock_);
    ASSERT_THAT(webhooks_->Set({std::move(options)}), test::IsOk());
  }
  double Count(std::string_view family, const std::string& label, const std::string& webhook = "ops") {
    for (const MetricFamily& f : metrics_.Collect()) {
      if (f.name != family) continue;
      for (const MetricSample& sample : f.samples) {
        if (sample.label_values == std::vector<std::string>{webhook, label}) return sample.value;
      }
    }
    return -1;
  }
  double Alerts(const std::string& outcome) { return Count("sluice_webhook_alerts_total", outcome); }
  double Attempts(const std::string& result) { return Count("sluice_webhook_attempts_total", result); }
  // The worker counts after the receiver has seen the answer, or found none.
  void WaitForAlerts(const std::string& outcome, double count, const std::string& webhook = "ops") {
    while (Count("sluice_webhook_alerts_total", outcome, webhook) < count) std::this_thread::yield();
  }

  SystemClock clock_;
  MetricsRegistry metrics_;
  std::unique_ptr<Webhooks> webhooks_;
};

TEST_F(WebhookTest, PostsWhatHappened) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(204, ""); });
  Start(To(receiver.url() + "/hooks/7"));
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kQueued);
  WaitForAlerts("sent", 1);
  const auto requests = receiver.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].path, "/hooks/7");
  EXPECT_EQ(requests[0].headers.at("content-type"), "application/json");
  EXPECT_EQ(requests[0].headers.count("x-sluice-signature-256"), 0u);
  const json body = json::parse(requests[0].body);
  EXPECT_EQ(body["policy"], "ttft");
  EXPECT_EQ(body["metric"], "ttft_p95_ms");
  EXPECT_EQ(body["state"], "violated");
  EXPECT_EQ(body["severity"], "warning");
  EXPECT_EQ(body["value"], 900.5);
  EXPECT_EQ(body["threshold"], 550);
  EXPECT_EQ(body["step"], 2);
  EXPECT_EQ(body["dry_run"], true);
  EXPECT_EQ(body["message"], "too slow");
  EXPECT_EQ(body["instance"], "server-1");
  EXPECT_EQ(body["id"], requests[0].headers.at("x-sluice-delivery"));
  EXPECT_EQ(body["time"].get<std::string>().size(), std::string("2026-01-31T23:59:59+00:00").size());
  EXPECT_EQ(webhooks_->Post("nobody", Violated()), Outcome::kUnknown);
}

TEST_F(WebhookTest, SignsWithTheSecret) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, "{}"); });
  WebhookOptions options = To(receiver.url());
  options.secret = "It's a Secret to Everybody";
  Start(options);
  (void)webhooks_->Post("ops", Violated());
  WaitForAlerts("sent", 1);
  const HttpRequest request = receiver.requests().at(0);
  EXPECT_EQ(request.headers.at("x-sluice-signature-256"), WebhookSignature(options.secret, request.body));
}

TEST(WebhookSignatureTest, KnownVectors) {
  // RFC 4231, test case 2; and the example of GitHub's documentation of webhooks.
  EXPECT_EQ(WebhookSignature("Jefe", "what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(WebhookSignature("It's a Secret to Everybody", "Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
}

TEST_F(WebhookTest, RetriesTheSameBodyUntilItArrives) {
  std::atomic<int> calls{0};
  FakeHttpServer receiver([&](const HttpRequest&, HttpPeer& peer) {
    switch (calls++) {
      case 0:
        peer.Answer(500, "");
        return;
      case 1:
        peer.Answer(429, "");
        return;
      case 2:
        peer.Reset();
        return;
      default:
        peer.Answer(200, "");
    }
  });
  Start(To(receiver.url()));
  (void)webhooks_->Post("ops", Violated());
  WaitForAlerts("sent", 1);
  const auto requests = receiver.requests();
  ASSERT_EQ(requests.size(), 4u);
  for (const HttpRequest& request : requests) EXPECT_EQ(request.body, requests[0].body);
  EXPECT_GE(Attempts("retry"), 2) << "libcurl itself sends again when a kept connection turns out to be gone";
  EXPECT_EQ(Attempts("ok"), 1);
  EXPECT_EQ(Alerts("failed"), 0);
}

TEST_F(WebhookTest, GivesUpAfterItsAttempts) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(503, ""); });
  WebhookOptions options = To(receiver.url());
  options.max_attempts = 3;
  Start(options);
  (void)webhooks_->Post("ops", Violated("a"));
  WaitForAlerts("failed", 1);
  EXPECT_EQ(receiver.requests().size(), 3u);
}

TEST_F(WebhookTest, ARefusalAndARedirectAreNotRetried) {
  FakeHttpServer receiver([](const HttpRequest& request, HttpPeer& peer) {
    if (json::parse(request.body)["policy"] == "moved") {
      peer.Send("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    } else {
      peer.Answer(400, "");
    }
  });
  Start(To(receiver.url()));
  (void)webhooks_->Post("ops", Violated("bad"));
  (void)webhooks_->Post("ops", Violated("moved"));
  WaitForAlerts("failed", 2);
  EXPECT_EQ(receiver.requests().size(), 2u);
  EXPECT_EQ(Attempts("refused"), 2);
}

TEST_F(WebhookTest, AHangingReceiverNeverBlocksThePosterAndTheQueueIsBounded) {
  std::latch posted(1);
  FakeHttpServer receiver([&](const HttpRequest&, HttpPeer& peer) {
    posted.wait();
    peer.Answer(200, "");
  });
  WebhookOptions options = To(receiver.url());
  options.timeout = minutes(1);
  options.max_queue = 3;
  Start(options);
  int full = 0;
  for (int i = 0; i < 10; ++i) full += webhooks_->Post("ops", Violated(std::to_string(i))) == Outcome::kQueueFull;
  EXPECT_EQ(full, 7) << "3 of 10 are kept, the one under way included";
  posted.count_down();
  WaitForAlerts("sent", 3);
  EXPECT_EQ(Alerts("queue_full"), 7);
  EXPECT_EQ(webhooks_->Post("ops", Violated("9")), Outcome::kQueued) << "what was dropped is no duplicate";
}

TEST_F(WebhookTest, AnAttemptTimesOut) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.WaitUntilClosed(); });
  WebhookOptions options = To(receiver.url());
  options.timeout = milliseconds(50);
  options.max_attempts = 2;
  Start(options);
  (void)webhooks_->Post("ops", Violated());
  WaitForAlerts("failed", 1);
  EXPECT_EQ(Attempts("retry"), 2);
}

TEST_F(WebhookTest, NobodyThere) {
  std::string url;
  {
    FakeHttpServer gone([](const HttpRequest&, HttpPeer&) {});
    url = gone.url();
  }
  WebhookOptions options = To(url + "/services/T0KEN?key=T0KEN");
  options.max_attempts = 2;
  Start(options);
  testing::internal::CaptureStderr();
  (void)webhooks_->Post("ops", Violated());
  WaitForAlerts("failed", 1);
  webhooks_ = nullptr;
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, testing::HasSubstr(url));
  EXPECT_THAT(log, testing::Not(testing::HasSubstr("T0KEN"))) << "paths of webhooks are secrets";
  EXPECT_EQ(Attempts("retry"), 2);
}

TEST_F(WebhookTest, TheSameAlertOnceAWindow) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, ""); });
  test::ManualClock clock;
  Open(clock);
  ASSERT_THAT(webhooks_->Set({To(receiver.url())}), test::IsOk());
  Alert recovered = Violated();
  recovered.state = "recovered";
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kQueued);
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kDuplicate);
  EXPECT_EQ(webhooks_->Post("ops", recovered), Outcome::kQueued);
  EXPECT_EQ(webhooks_->Post("ops", Violated("other")), Outcome::kQueued);
  clock.Advance(minutes(5) - Duration(1));
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kDuplicate);
  clock.Advance(Duration(1));
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kQueued);
  WaitForAlerts("sent", 4);
  EXPECT_EQ(Alerts("duplicate"), 2);
  webhooks_ = nullptr;  // before its clock
}

TEST_F(WebhookTest, TlsIsVerified) {
  const test::TestCertificate certificate("localhost");
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, ""); }, &certificate);
  const test::TempFolder folder;
  folder.Write("ca.pem", certificate.CertificatePem());
  WebhookOptions trusting = To(fmt::format("https://localhost:{}/", receiver.port()));
  trusting.ca_file = folder / "ca.pem";
  WebhookOptions wrong_name = trusting, unknown_authority = trusting;
  wrong_name.name = "wrong";
  wrong_name.url = fmt::format("https://127.0.0.1:{}/", receiver.port());
  unknown_authority.name = "unknown";
  unknown_authority.ca_file = "";
  wrong_name.max_attempts = unknown_authority.max_attempts = 1;
  Open(clock_);
  ASSERT_THAT(webhooks_->Set({trusting, wrong_name, unknown_authority}), test::IsOk());
  for (const char* name : {"ops", "wrong", "unknown"}) (void)webhooks_->Post(name, Violated());
  WaitForAlerts("sent", 1);
  WaitForAlerts("failed", 1, "wrong");
  WaitForAlerts("failed", 1, "unknown");
  EXPECT_EQ(receiver.requests().size(), 1u) << "nothing was said to a receiver that could not prove who it is";
}

TEST_F(WebhookTest, MalformedTextIsRepaired) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, ""); });
  Start(To(receiver.url()));
  Alert alert = Violated();
  alert.message = "\xFF\xFE";
  (void)webhooks_->Post("ops", alert);
  WaitForAlerts("sent", 1);
  EXPECT_EQ(json::parse(receiver.requests().at(0).body)["message"], "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_F(WebhookTest, EndsWhileAReceiverHangs) {
  std::latch asked(1);
  FakeHttpServer receiver([&](const HttpRequest&, HttpPeer& peer) {
    asked.count_down();
    peer.WaitUntilClosed();
  });
  WebhookOptions options = To(receiver.url());
  options.timeout = minutes(10);
  Start(options);
  (void)webhooks_->Post("ops", Violated("a"));
  (void)webhooks_->Post("ops", Violated("b"));
  asked.wait();
  webhooks_ = nullptr;  // the test's time limit is the check
  EXPECT_EQ(receiver.requests().size(), 1u);
}

TEST_F(WebhookTest, ManyPosters) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, ""); });
  WebhookOptions options = To(receiver.url());
  options.max_queue = 1000;
  Start(options);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) (void)webhooks_->Post("ops", Violated(fmt::format("{}-{}", t, i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  WaitForAlerts("sent", 100);
  EXPECT_EQ(receiver.requests().size(), 100u);
  EXPECT_EQ(receiver.connections(), 1) << "kept open";
}

TEST(WebhookBackoffTest, DoublesWithJitterAndHeedsTheReceiver) {
  const WebhookOptions options{.initial_backoff = seconds(1), .max_backoff = seconds(60)};
  EXPECT_EQ(WebhookBackoff(options, 1, {}, 0), seconds(1));
  EXPECT_EQ(WebhookBackoff(options, 3, {}, 0), seconds(4));
  EXPECT_EQ(WebhookBackoff(options, 3, {}, 0.5), seconds(3));
  EXPECT_EQ(WebhookBackoff(options, 1000, {}, 0), seconds(60));
  EXPECT_EQ(WebhookBackoff(options, 1, seconds(30), 0), seconds(30));
  EXPECT_EQ(WebhookBackoff(options, 1, std::chrono::hours(5), 0), seconds(60)) << "not for ever";
  EXPECT_EQ(WebhookBackoff(options, 7, seconds(1), 0), seconds(60));
}

TEST_F(WebhookTest, BadOptionsAreRefused) {
  Start(To("https://127.0.0.1:1/"));
  EXPECT_THAT(webhooks_->Set({To("ftp://x")}), test::StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(webhooks_->Set({To("file:///etc/passwd")}), test::StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(webhooks_->Set({To("https://a"), To("https://b")}),
              test::StatusIs(absl::StatusCode::kInvalidArgument, "two webhooks are called 'ops'"));
  EXPECT_THAT(webhooks_->Set({{.url = "https://a"}}), test::StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kQueued) << "what was there stays";
}

TEST_F(WebhookTest, SetKeepsWhatStaysAsItIs) {
  FakeHttpServer receiver([](const HttpRequest&, HttpPeer& peer) { peer.Answer(200, ""); });
  WebhookOptions first = To(receiver.url()), second = first;
  second.name = "second";
  Open(clock_);
  ASSERT_THAT(webhooks_->Set({first, second}), test::IsOk());
  (void)webhooks_->Post("ops", Violated());
  (void)webhooks_->Post("second", Violated());
  WaitForAlerts("sent", 1);
  WaitForAlerts("sent", 1, "second");
  second.url += "/new";
  ASSERT_THAT(webhooks_->Set({first, second}), test::IsOk());
  EXPECT_EQ(webhooks_->Post("ops", Violated()), Outcome::kDuplicate) << "it remembers";
  EXPECT_EQ(webhooks_->Post("second", Violated()), Outcome::kQueued) << "it is another one";
  WaitForAlerts("sent", 2, "second");
  ASSERT_THAT(webhooks_->Set({first}), test::IsOk());
  EXPECT_EQ(webhooks_->Post("second", Violated()), Outcome::kUnknown);
}

}  // namespace
}  // namespace sluice::services
