#include "services/telemetry/metrics_endpoint.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "base/check.h"
#include "tests/services/exposition.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using test::Exposition;
using test::IsOk;
using test::StatusIs;
using testing::HasSubstr;

struct Response {
  std::string head, body;
};

// One HTTP/1.0 request over a real socket.
Response Get(int port, const std::string& path) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  SLUICE_CHECK(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0, "the endpoint listens");
  const std::string request = fmt::format("GET {} HTTP/1.0\r\nHost: localhost\r\n\r\n", path);
  SLUICE_CHECK(::send(fd, request.data(), request.size(), 0) == static_cast<ssize_t>(request.size()), "sent");
  std::string all;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) all.append(buffer, static_cast<size_t>(n));
  ::close(fd);
  const size_t split = all.find("\r\n\r\n");
  SLUICE_CHECK(split != std::string::npos, "the answer has a head");
  return {all.substr(0, split), all.substr(split + 4)};
}

TEST(MetricsEndpointTest, ServesEveryTypeInTheTextFormat) {
  MetricsRegistry registry;
  registry.AddCounter("vllm:prompt_tokens_total", "Prompt tokens", {"model_name", "engine"}).With({"m", "0"}).Add(7);
  registry.AddGauge("sluice_test_ratio", "A share").With({}).Set(0.25);
  auto& histogram = registry.AddHistogram("sluice_test_seconds", "Times", {0.5, 1}, {"class"}).With({"batch"});
  for (const double v : {0.5, 0.75, 2.0}) histogram.Observe(v);
  registry.AddCallbackGauge("sluice_test_now", "Asked at scrape time", [] { return 3.0; });
  registry.AddCounter("sluice_test_unused_total", "No series yet", {"label"});

  auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", registry, nullptr);
  ASSERT_THAT(endpoint, IsOk());
  ASSERT_GT((*endpoint)->port(), 0);
  const Response response = Get((*endpoint)->port(), "/metrics");
  EXPECT_THAT(response.head, HasSubstr("200 OK"));
  EXPECT_THAT(response.head, HasSubstr("text/plain"));
  const Exposition scrape(response.body);
  ASSERT_EQ(scrape.error, "") << response.body;
  EXPECT_EQ(scrape.types.at("vllm:prompt_tokens_total"), "counter");
  EXPECT_EQ(scrape.types.at("sluice_test_ratio"), "gauge");
  EXPECT_EQ(scrape.types.at("sluice_test_seconds"), "histogram");
  EXPECT_EQ(scrape.samples.at(R"(vllm:prompt_tokens_total{model_name="m",engine="0"})"), 7);
  EXPECT_EQ(scrape.samples.at("sluice_test_ratio"), 0.25);
  EXPECT_EQ(scrape.samples.at("sluice_test_now"), 3);
  EXPECT_EQ(scrape.samples.at(R"(sluice_test_seconds_count{class="batch"})"), 3);
  EXPECT_EQ(scrape.samples.at(R"(sluice_test_seconds_sum{class="batch"})"), 3.25);
  EXPECT_EQ(scrape.samples.at(R"(sluice_test_seconds_bucket{class="batch",le="0.5"})"), 1);
  EXPECT_EQ(scrape.samples.at(R"(sluice_test_seconds_bucket{class="batch",le="1"})"), 2);
  EXPECT_EQ(scrape.samples.at(R"(sluice_test_seconds_bucket{class="batch",le="+Inf"})"), 3);
  EXPECT_EQ(scrape.types.count("sluice_test_unused_total"), 0u);
}

TEST(MetricsEndpointTest, HostileLabelValuesCannotBreakTheFormat) {
  MetricsRegistry registry;
  auto& counter = registry.AddCounter("sluice_test_total", "Test", {"model"});
  for (const char* value : {"quote\"", "back\\slash", "line\nfeed", "bad utf8 \xFF", "} 1\nfake_total 1"}) {
    counter.With({value}).Add();
  }
  auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", registry, nullptr);
  ASSERT_THAT(endpoint, IsOk());
  const Response response = Get((*endpoint)->port(), "/metrics");
  const Exposition scrape(response.body);
  ASSERT_EQ(scrape.error, "") << response.body;
  EXPECT_EQ(scrape.samples.count("fake_total"), 0u);
  EXPECT_EQ(scrape.samples.at(R"(sluice_test_total{model="line\nfeed"})"), 1);
  EXPECT_EQ(scrape.samples.at("sluice_test_total{model=\"bad utf8 \xEF\xBF\xBD\"}"), 1);
}

TEST(MetricsEndpointTest, RefreshesBeforeEachScrapeAndAnswersNothingElse) {
  MetricsRegistry registry;
  auto& gauge = registry.AddGauge("sluice_test_scrapes", "Scrapes so far").With({});
  auto endpoint = MetricsEndpoint::Start("127.0.0.1:0", registry, [&] { gauge.Add(1); });
  ASSERT_THAT(endpoint, IsOk());
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(Exposition(Get((*endpoint)->port(), "/metrics").body).samples.at("sluice_test_scrapes"), i);
  }
  for (const char* path : {"/", "/etc/passwd", "/../CMakeLists.txt", "/CMakeLists.txt"}) {
    EXPECT_THAT(Get((*endpoint)->port(), path).head, HasSubstr(" 404 ")) << path;
  }
}

TEST(MetricsEndpointTest, ATakenPortIsUnavailable) {
  MetricsRegistry registry;
  auto first = MetricsEndpoint::Start("127.0.0.1:0", registry, nullptr);
  ASSERT_THAT(first, IsOk());
  const std::string address = fmt::format("127.0.0.1:{}", (*first)->port());
  EXPECT_THAT(MetricsEndpoint::Start(address, registry, nullptr),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(address)));
  first->reset();
  EXPECT_THAT(MetricsEndpoint::Start(address, registry, nullptr), IsOk());
}

TEST(MetricsEndpointTest, RefusesWhatIsNotHostAndPort) {
  MetricsRegistry registry;
  for (const char* address : {"", "8002", ":8002", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                              "127.0.0.1:8002s", "127.0.0.1:0,0.0.0.0:0", "+0.0.0.0:0"}) {
    EXPECT_THAT(MetricsEndpoint::Start(address, registry, nullptr), StatusIs(absl::StatusCode::kInvalidArgument))
        << address;
  }
}

TEST(ExpositionTest, TheCheckerRefusesMalformedText) {
  const std::string type = "# TYPE a_total counter\n";
  EXPECT_EQ(Exposition(type + "a_total 1\n").error, "");
  for (const std::string& text :
       {type + "a_total 1", type + "a_total x\n", type + "a_total{b=\"c} 1\n", type + "a_total{1b=\"c\"} 1\n",
        type + "a_total 1\na_total 1\n", type + "other 1\n", type + type, std::string("# TYPE a counter\na 1\n"),
        std::string("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n"),
        std::string("# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n")}) {
    EXPECT_NE(Exposition(text).error, "") << text;
  }
}

}  // namespace
}  // namespace sluice::services
