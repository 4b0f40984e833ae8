#include "services/telemetry/request_probe.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using engine::FinishReason;
using engine::GenerationSummary;
using std::chrono::milliseconds;
using std::chrono::seconds;

class RequestProbeTest : public testing::Test {
 protected:
  RequestProbeTest() {
    InitLogging(LogFormat::kJson, LogLevel::kDebug);
    request_.request_id = "r1";
    request_.caller.key_name = "team-a";
    request_.door = "grpc";
    request_.input = std::string("the secret prompt");
    request_.max_tokens = 16;
    request_.tenant = "asked-tenant";
    request_.user = "alice@example.com";
    request_.conversation = "conv-77";
    request_.qos_class = qos::QosClass::kInteractive;
    request_.arrival = clock_.Now();
    info_ = {.request_id = "r1", .model = "small", .pipeline = "ttft", .tenant = "a"};
    info_.flags = "ttft_pipeline=on;reason=SPLIT";
    info_.qos = "admitted;class=interactive;queue_ms=0";
    summary_.reason = FinishReason::kLength;
    summary_.prompt_tokens = 100;
    summary_.cached_tokens = 60;
    summary_.output_tokens = 5;
    summary_.queue_wait = milliseconds(10);
    summary_.prefill = milliseconds(200);
    summary_.ttft = milliseconds(210);
    summary_.decode = milliseconds(400);
  }
  ~RequestProbeTest() override { InitLogging(LogFormat::kText, LogLevel::kInfo); }

  // Finishes the request two seconds after it came; returns its log line, which must be the only one.
  nlohmann::json Finish(const absl::Status& status, const GenerationSummary* summary) {
    clock_.Advance(seconds(2));
    testing::internal::CaptureStderr();
    probe_.Finished(request_, info_, status, summary);
    log_ = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(log_.begin(), log_.end(), '\n'), 1) << log_;
    return nlohmann::json::parse(log_);
  }

  const MetricFamily& FamilyOf(const std::string& name) {
    collected_ = metrics_.Collect();
    for (const MetricFamily& family : collected_) {
      if (family.name == name) return family;
    }
    ADD_FAILURE() << "no metric " << name;
    static const MetricFamily none;
    return none;
  }
  // The value (counters) or the sum (histograms) of the series; -1 when it does not exist.
  double Value(const std::string& name, const std::vector<std::string>& labels) {
    const MetricFamily& family = FamilyOf(name);
    for (const MetricSample& sample : family.samples) {
      if (sample.label_values != labels) continue;
      return family.type == MetricType::kHistogram ? sample.histogram.sum : sample.value;
    }
    return -1;
  }

  test::ManualClock clock_;
  MetricsRegistry metrics_;
  RequestProbe probe_{metrics_, clock_};
  InferenceRequest request_;
  FlowInfo info_;
  GenerationSummary summary_;
  std::string log_;
  std::vector<MetricFamily> collected_;
};

const std::vector<std::string> kSmall = {"small", "0"};

TEST_F(RequestProbeTest, CountsAGenerationUnderTheNamesOfVllm) {
  Finish(absl::OkStatus(), &summary_);
  Finish(absl::OkStatus(), &summary_);
  EXPECT_EQ(Value("vllm:request_success_total", {"small", "0", "length"}), 2);
  EXPECT_EQ(Value("vllm:prompt_tokens_total", kSmall), 200);
  EXPECT_EQ(Value("vllm:generation_tokens_total", kSmall), 10);
  EXPECT_EQ(Value("vllm:prompt_tokens_cached_total", kSmall), 120);
  EXPECT_EQ(Value("vllm:prefix_cache_queries_total", kSmall), 200);
  EXPECT_EQ(Value("vllm:prefix_cache_hits_total", kSmall), 120);
  EXPECT_DOUBLE_EQ(Value("vllm:time_to_first_token_seconds", kSmall), 0.42);
  EXPECT_DOUBLE_EQ(Value("vllm:e2e_request_latency_seconds", kSmall), 2 + 4);
  EXPECT_DOUBLE_EQ(Value("vllm:request_queue_time_seconds", kSmall), 0.02);
  EXPECT_DOUBLE_EQ(Value("vllm:request_prefill_time_seconds", kSmall), 0.4);
  EXPECT_DOUBLE_EQ(Value("vllm:request_decode_time_seconds", kSmall), 0.8);
  EXPECT_DOUBLE_EQ(Value("vllm:request_inference_time_seconds", kSmall), 1.2);
  EXPECT_DOUBLE_EQ(Value("vllm:request_time_per_output_token_seconds", kSmall), 0.2);  // 400 ms over four gaps
  EXPECT_EQ(Value("vllm:request_prompt_tokens", kSmall), 200);
  EXPECT_EQ(Value("vllm:request_generation_tokens", kSmall), 10);
  EXPECT_EQ(Value("vllm:request_params_max_tokens", kSmall), 32);
  EXPECT_EQ(Value("sluice_requests_total", {"grpc", "small", "ttft", "OK", "OK"}), 2);
  EXPECT_DOUBLE_EQ(Value("sluice_ttft_seconds", {"small", "ttft", "interactive"}), 0.42);
  EXPECT_TRUE(FamilyOf("sluice_request_errors_total").samples.empty());
}

TEST_F(RequestProbeTest, UsesTheBucketsOfVllm) {
  Finish(absl::OkStatus(), &summary_);
  const auto bounds = [&](const std::string& name) { return FamilyOf(name).samples.at(0).histogram.bounds; };
  EXPECT_EQ(bounds("vllm:time_to_first_token_seconds"),
            (std::vector<double>{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                 1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560}));
  EXPECT_EQ(bounds("vllm:request_time_per_output_token_seconds").front(), .01);
  EXPECT_EQ(bounds("vllm:request_time_per_output_token_seconds").back(), 80);
  for (const char* name :
       {"vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds", "vllm:request_inference_time_seconds"}) {
    EXPECT_EQ(bounds(name).size(), 21u) << name;
    EXPECT_EQ(bounds(name).front(), .3) << name;
    EXPECT_EQ(bounds(name).back(), 7680) << name;
  }
  EXPECT_EQ(bounds("vllm:request_prompt_tokens")[4], 20);
}

TEST_F(RequestProbeTest, CountersEndInTotalAndNothingIsLabelledByTenantOrUser) {
  Finish(absl::OkStatus(), &summary_);
  const std::set<std::string> allowed = {"model_name", "engine", "finished_reason", "door",  "model", "pipeline",
                                         "code",       "reason", "class",           "fault", "metric"};
  for (const MetricFamily& family : metrics_.Collect()) {
    const bool total = family.name.size() > 6 && family.name.substr(family.name.size() - 6) == "_total";
    EXPECT_EQ(family.type == MetricType::kCounter, total) << family.name;
    for (const std::string& label : family.label_names) EXPECT_EQ(allowed.count(label), 1u) << family.name << label;
  }
}

TEST_F(RequestProbeTest, OneTokenHasNoGapAndNoTokenHasNoTtft) {
  summary_.output_tokens = 1;
  summary_.decode = Duration::zero();
  Finish(absl::OkStatus(), &summary_);
  EXPECT_EQ(FamilyOf("vllm:request_time_per_output_token_seconds").samples.at(0).histogram.cumulative.back(), 0u);
  EXPECT_EQ(FamilyOf("vllm:time_to_first_token_seconds").samples.at(0).histogram.cumulative.back(), 1u);

  summary_.reason = FinishReason::kDeadline;
  summary_.output_tokens = 0;
  const auto line = Finish(absl::DeadlineExceededError("too late"), &summary_);
  EXPECT_EQ(FamilyOf("vllm:time_to_first_token_seconds").samples.at(0).histogram.cumulative.back(), 1u);
  EXPECT_EQ(FamilyOf("vllm:request_queue_time_seconds").samples.at(0).histogram.cumulative.back(), 2u);
  EXPECT_EQ(Value("vllm:prompt_tokens_total", kSmall), 100) << "a prompt that was never prefilled does not count";
  EXPECT_EQ(Value("vllm:request_success_total", {"small", "0", "abort"}), 1);
  EXPECT_EQ(Value("sluice_request_errors_total", {"small", "ttft", "deadline"}), 1);
  EXPECT_FALSE(line.contains("ttft_ms"));
  EXPECT_TRUE(line.contains("queue_ms"));
}

TEST_F(RequestProbeTest, WritesOneJsonLineWithEveryField) {
  const auto line = Finish(absl::OkStatus(), &summary_);
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["msg"], "request");
  const std::map<std::string, std::string> words = {{"request_id", "r1"},
                                                    {"door", "grpc"},
                                                    {"key", "team-a"},
                                                    {"tenant", "a"},
                                                    {"model", "small"},
                                                    {"pipeline", "ttft"},
                                                    {"class", "interactive"},
                                                    {"flags", "ttft_pipeline=on;reason=SPLIT"},
                                                    {"qos", "admitted;class=interactive;queue_ms=0"},
                                                    {"code", "OK"},
                                                    {"reason", "OK"},
                                                    {"finish", "length"}};
  for (const auto& [key, value] : words) EXPECT_EQ(line[key], value) << key;
  const std::map<std::string, double> numbers = {{"prompt_tokens", 100}, {"cached_tokens", 60}, {"output_tokens", 5},
                                                 {"queue_ms", 10},       {"prefill_ms", 200},   {"ttft_ms", 210},
                                                 {"total_ms", 2000}};
  for (const auto& [key, value] : numbers) EXPECT_EQ(line[key], value) << key;
}

TEST_F(RequestProbeTest, NeverLogsPromptsUsersConversationsOrMessagesAboutInput) {
  Finish(absl::OkStatus(), &summary_);
  std::string all = log_;
  Finish(absl::InvalidArgumentError("bad: the secret prompt"), nullptr);
  all += log_;
  for (const char* secret : {"secret", "alice", "conv-77", "asked-tenant"}) {
    EXPECT_THAT(all, testing::Not(testing::HasSubstr(secret)));
  }
}

TEST_F(RequestProbeTest, HostileFieldsStayOneValidJsonLine) {
  request_.request_id = "a\"b\\c\nd\xFF}";
  info_.tenant = std::string(20000, 't');
  const auto line = Finish(absl::OkStatus(), &summary_);
  EXPECT_EQ(line["request_id"], "a\"b\\c\nd\xEF\xBF\xBD}");
}

TEST_F(RequestProbeTest, ARefusalIsCountedOnceAndLeavesTheEnginesMetricsAlone) {
  info_.pipeline = "";
  const auto full = MakeError(Reason::kQueueFull, "full");
  const auto line = Finish(full, nullptr);
  EXPECT_EQ(Value("sluice_requests_total", {"grpc", "small", "none", "RESOURCE_EXHAUSTED", "QUEUE_FULL"}), 1);
  EXPECT_EQ(Value("sluice_request_errors_total", {"small", "none", "capacity"}), 1);
  EXPECT_TRUE(FamilyOf("vllm:request_success_total").samples.empty());
  EXPECT_TRUE(FamilyOf("vllm:e2e_request_latency_seconds").samples.empty());
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["reason"], "QUEUE_FULL");
  EXPECT_FALSE(line.contains("prompt_tokens"));
  EXPECT_EQ(line["total_ms"], 2000);
}

TEST_F(RequestProbeTest, ModelsThatDoNotExistShareOneLabel) {
  for (int i = 0; i < 300; ++i) {
    info_.model = fmt::format("junk-{}", i);
    Finish(MakeError(Reason::kModelNotFound, "no such model"), nullptr);
  }
  EXPECT_EQ(Value("sluice_requests_total", {"grpc", "unknown", "ttft", "NOT_FOUND", "MODEL_NOT_FOUND"}), 300);
  EXPECT_EQ(FamilyOf("sluice_requests_total").samples.size(), 1u);
}

TEST_F(RequestProbeTest, SaysWhoseFaultAnErrorIs) {
  struct Case {
    absl::Status status;
    bool reached_engine;
    const char* fault;
    const char* level;
  };
  const std::vector<Case> cases = {
      {absl::InvalidArgumentError("x"), false, "client", "info"},
      {absl::OutOfRangeError("x"), false, "client", "info"},
      {absl::CancelledError("x"), true, "cancelled", "info"},
      {absl::DeadlineExceededError("x"), true, "deadline", "info"},
      {absl::ResourceExhaustedError("x"), true, "capacity", "info"},
      {absl::UnavailableError("draining"), false, "capacity", "info"},
      {absl::UnavailableError("the engine stopped"), true, "server", "warning"},
      {absl::InternalError("decode failed"), true, "server", "warning"},
      {absl::UnknownError("x"), false, "server", "warning"},
  };
  std::map<std::string, double> expected;
  for (const Case& c : cases) {
    summary_.reason = FinishReason::kError;
    const auto line = Finish(c.status, c.reached_engine ? &summary_ : nullptr);
    EXPECT_EQ(line["level"], c.level) << c.status;
    EXPECT_EQ(line.contains("error"), std::string(c.fault) == "server") << c.status;
    EXPECT_EQ(Value("sluice_request_errors_total", {"small", "ttft", c.fault}), ++expected[c.fault]) << c.status;
  }
}

}  // namespace
}  // namespace sluice::services
