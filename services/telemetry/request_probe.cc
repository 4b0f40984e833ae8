#include "services/telemetry/request_probe.h"

#include <fmt/format.h>

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "services/telemetry/flag_evaluation_log.h"

namespace sluice::services {
namespace {

using engine::FinishReason;
using engine::GenerationSummary;

// vLLM's buckets, so that its dashboards and alerts fit.
const std::vector<double> kTtftBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                          1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kTokenGapBuckets = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                              .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kLatencyBuckets = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                             30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kTokenBuckets = {1,   2,    5,    10,   20,    50,    100,   200,
                                           500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
// Finer where the objectives lie (400 and 550 ms).
const std::vector<double> kOwnTtftBuckets = {.001, .002, .005, .01, .02, .03, .05, .075, .1, .15, .2,
                                             .3,   .4,   .55,  .75, 1,   1.5, 2.5, 5,    10, 30,  60};

// vLLM knows stop, length, abort and error.
std::string_view VllmReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
    case FinishReason::kDeadline:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

// Who has to act on an error. "capacity": refused in time, nothing is broken.
std::string_view FaultOf(const absl::Status& status, bool reached_engine) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return "none";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kResourceExhausted:
      return "capacity";
    case absl::StatusCode::kUnavailable:
      return reached_engine ? "server" : "capacity";
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return "client";
    default:
      return "server";
  }
}

// A name that no model has must not become a label: anybody could fill the label limit with it.
std::string ModelLabel(const FlowInfo& info, const absl::Status& status) {
  const bool unknown = info.model.empty() || absl::IsNotFound(status) || absl::IsPermissionDenied(status);
  return unknown ? "unknown" : info.model;
}

}  // namespace

struct RequestProbe::Impl {
  // The series of one model.
  struct ModelSeries {
    Counter &prompt_tokens, &generation_tokens, &cached_tokens, &prefix_queries, &prefix_hits;
    Histogram &ttft, &e2e, &queue, &prefill, &decode, &inference, &per_token;
    Histogram &prompt_size, &generation_size, &max_tokens;
  };

  Impl(MetricsRegistry& m, const Clock& c, config::FlagEvaluations which)
      : metrics(m), clock(c), flag_evaluations(which) {}

  Family<Counter>& VllmCounter(const char* name, const char* help) {
    return metrics.AddCounter(name, help, {"model_name", "engine"});
  }
  Family<Histogram>& VllmHistogram(const char* name, const char* help, const std::vector<double>& buckets) {
    return metrics.AddHistogram(name, help, buckets, {"model_name", "engine"});
  }

  ModelSeries& Series(const std::string& model) {
    MutexLock lock(mu);
    const bool room = series.size() < MetricsRegistry::kDefaultMaxSeries;
    const std::string name = room || series.count(model) > 0 ? model : "other";
    const auto it = series.find(name);
    if (it != series.end()) return it->second;
    const std::vector<std::string> labels = {name, "0"};
    const auto with = [&labels](auto& family) -> auto& { return family.With(labels); };
    return series
        .try_emplace(name, ModelSeries{with(prompt_tokens), with(generation_tokens), with(cached_tokens),
                                       with(prefix_queries), with(prefix_hits), with(ttft), with(e2e), with(queue),
                                       with(prefill), with(decode), with(inference), with(per_token), with(prompt_size),
                                       with(generation_size), with(max_tokens)})
        .first->second;
  }

  void CountGeneration(const std::string& model, const InferenceRequest& request, const GenerationSummary& summary);

  MetricsRegistry& metrics;
  const Clock& clock;
  FlagEvaluationLog flag_evaluations;
  Mutex mu;  // taken before a family's own lock
  std::map<std::string, ModelSeries> series ABSL_GUARDED_BY(mu);

  Family<Counter>& success = metrics.AddCounter("vllm:request_success_total", "Finished requests by finish reason",
                                                {"model_name", "engine", "finished_reason"});
  Family<Counter>& prompt_tokens = VllmCounter("vllm:prompt_tokens_total", "Prompt tokens, cached ones included");
  Family<Counter>& generation_tokens = VllmCounter("vllm:generation_tokens_total", "Generated tokens");
  Family<Counter>& cached_tokens = VllmCounter("vllm:prompt_tokens_cached_total", "Prompt tokens whose KV was reused");
  Family<Counter>& prefix_queries =
      VllmCounter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache");
  Family<Counter>& prefix_hits = VllmCounter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache");
  Family<Histogram>& ttft = VllmHistogram("vllm:time_to_first_token_seconds", "Arrival to first token", kTtftBuckets);
  Family<Histogram>& e2e =
      VllmHistogram("vllm:e2e_request_latency_seconds", "Arrival to the end of the request", kLatencyBuckets);
  Family<Histogram>& queue =
      VllmHistogram("vllm:request_queue_time_seconds", "Arrival to the first scheduled step", kLatencyBuckets);
  Family<Histogram>& prefill =
      VllmHistogram("vllm:request_prefill_time_seconds", "First scheduled step to first token", kLatencyBuckets);
  Family<Histogram>& decode =
      VllmHistogram("vllm:request_decode_time_seconds", "First token to last token", kLatencyBuckets);
  Family<Histogram>& inference =
      VllmHistogram("vllm:request_inference_time_seconds", "First scheduled step to last token", kLatencyBuckets);
  Family<Histogram>& per_token =
      VllmHistogram("vllm:request_time_per_output_token_seconds",
                    "Mean gap between the tokens of one request (requests of two tokens or more)", kTokenGapBuckets);
  Family<Histogram>& prompt_size =
      VllmHistogram("vllm:request_prompt_tokens", "Prompt tokens of a request", kTokenBuckets);
  Family<Histogram>& generation_size =
      VllmHistogram("vllm:request_generation_tokens", "Generated tokens of a request", kTokenBuckets);
  Family<Histogram>& max_tokens =
      VllmHistogram("vllm:request_params_max_tokens", "max_tokens as the request asked", kTokenBuckets);

  Family<Counter>& requests = metrics.AddCounter("sluice_requests_total", "Finished requests, refused ones included",
                                                 {"door", "model", "pipeline", "code", "reason"}, /*max_series=*/1000);
  Family<Counter>& errors = metrics.AddCounter(
      "sluice_request_errors_total", "Requests that did not end OK, by who has to act", {"model", "pipeline", "fault"});
  Family<Histogram>& own_ttft = metrics.AddHistogram("sluice_ttft_seconds", "Arrival to first token", kOwnTtftBuckets,
                                                     {"model", "pipeline", "class"});
};

void RequestProbe::Impl::CountGeneration(const std::string& model, const InferenceRequest& request,
                                         const GenerationSummary& summary) {
  ModelSeries& s = Series(model);
  s.e2e.Observe(ToSeconds(clock.Now() - request.arrival));
  s.queue.Observe(ToSeconds(summary.queue_wait));
  if (request.max_tokens.has_value()) s.max_tokens.Observe(*request.max_tokens);
  if (summary.output_tokens == 0) return;  // never finished its prefill: no token counts, no phases
  s.prompt_tokens.Add(summary.prompt_tokens);
  s.generation_tokens.Add(summary.output_tokens);
  s.cached_tokens.Add(summary.cached_tokens);
  s.prefix_queries.Add(summary.prompt_tokens);
  s.prefix_hits.Add(summary.cached_tokens);
  s.ttft.Observe(ToSeconds(summary.ttft));
  s.prefill.Observe(ToSeconds(summary.prefill));
  s.decode.Observe(ToSeconds(summary.decode));
  s.inference.Observe(ToSeconds(summary.prefill + summary.decode));
  if (summary.output_tokens > 1) s.per_token.Observe(ToSeconds(summary.decode) / (summary.output_tokens - 1));
  s.prompt_size.Observe(summary.prompt_tokens);
  s.generation_size.Observe(summary.output_tokens);
}

namespace {

LogField Number(std::string key, int value) { return {std::move(key), fmt::to_string(value), /*raw=*/true}; }
LogField Millis(std::string key, Duration d) { return {std::move(key), fmt::format("{:.3f}", ToMillis(d)), true}; }

std::vector<LogField> RequestLine(const InferenceRequest& request, const FlowInfo& info, const absl::Status& status,
                                  const GenerationSummary* summary, Duration total) {
  std::vector<LogField> line = {{"request_id", request.request_id},
                                {"door", request.door},
                                {"key", request.caller.key_name},
                                {"tenant", info.tenant},
                                {"model", info.model},
                                {"pipeline", info.pipeline},
                                {"class", std::string(qos::QosClassName(request.qos_class))},
                                {"flags", info.flags},
                                {"qos", info.qos},
                                {"code", absl::StatusCodeToString(status.code())},
                                {"reason", ReasonOf(status)}};
  if (summary != nullptr) {
    line.push_back({"finish", std::string(engine::FinishReasonName(summary->reason))});
    line.push_back(Number("prompt_tokens", summary->prompt_tokens));
    line.push_back(Number("cached_tokens", summary->cached_tokens));
    line.push_back(Number("output_tokens", summary->output_tokens));
    line.push_back(Millis("queue_ms", summary->queue_wait));
    if (summary->output_tokens > 0) {
      line.push_back(Millis("prefill_ms", summary->prefill));
      line.push_back(Millis("ttft_ms", summary->ttft));
    }
  }
  line.push_back(Millis("total_ms", total));
  return line;
}

}  // namespace

RequestProbe::RequestProbe(MetricsRegistry& metrics, const Clock& clock, config::FlagEvaluations flag_evaluations)
    : impl_(std::make_unique<Impl>(metrics, clock, flag_evaluations)) {}

RequestProbe::~RequestProbe() = default;

void RequestProbe::Decided(const InferenceRequest& request, std::string_view targeting_key,
                           const flags::RequestDecisions& decisions) {
  impl_->flag_evaluations.Decided(request.request_id, targeting_key, decisions);
}

void RequestProbe::Finished(const InferenceRequest& request, const FlowInfo& info, const absl::Status& status,
                            const GenerationSummary* summary) {
  Impl& p = *impl_;
  const std::string model = ModelLabel(info, status);
  const std::string pipeline = info.pipeline.empty() ? "none" : info.pipeline;
  const std::string_view fault = FaultOf(status, summary != nullptr);
  p.requests.With({request.door, model, pipeline, absl::StatusCodeToString(status.code()), ReasonOf(status)}).Add();
  if (!status.ok()) p.errors.With({model, pipeline, std::string(fault)}).Add();
  if (summary != nullptr) {
    p.success.With({model, "0", std::string(VllmReason(summary->reason))}).Add();
    p.CountGeneration(model, request, *summary);
    if (summary->output_tokens > 0) {
      p.own_ttft.With({model, pipeline, std::string(qos::QosClassName(request.qos_class))})
          .Observe(ToSeconds(summary->ttft));
    }
  }
  std::vector<LogField> line = RequestLine(request, info, status, summary, p.clock.Now() - request.arrival);
  // Only then: messages about bad input may repeat the input.
  if (fault == "server") line.push_back({"error", std::string(ToStd(status.message()))});
  Log(fault == "server" ? LogLevel::kWarning : LogLevel::kInfo, "request", line);
}

}  // namespace sluice::services
