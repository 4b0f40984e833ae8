// VllmJson: names and formulas as in vLLM's vllm/benchmarks/serve.py (calculate_metrics and benchmark).
#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "loadtest/report_json.h"

namespace sluice::loadtest {
namespace {

using Json = nlohmann::json;

double Seconds(int64_t ns) { return static_cast<double>(ns) / 1e9; }

// From the send to the last token; 0 for a request that failed.
double LatencyOf(const Record& r) {
  return r.ok() && r.last_token_ns() >= 0 ? Seconds(r.last_token_ns() - r.sent_ns) : 0;
}

std::vector<double> Gaps(const Record& r) {
  std::vector<double> gaps;
  for (size_t i = 1; i < r.token_ns.size(); ++i) gaps.push_back(Seconds(r.token_ns[i] - r.token_ns[i - 1]));
  return gaps;
}

// A server that did not count sent at least one token a message.
int64_t OutputLength(const Record& r) {
  if (!r.ok()) return 0;
  return r.output_tokens >= 0 ? r.output_tokens : static_cast<int64_t>(r.token_ns.size());
}

void AddStatistics(const std::string& name, std::vector<double> seconds, Json& json) {
  std::sort(seconds.begin(), seconds.end());
  const double n = static_cast<double>(std::max<size_t>(seconds.size(), 1));
  double mean = 0, squares = 0;
  for (const double s : seconds) mean += s / n;
  for (const double s : seconds) squares += (s - mean) * (s - mean) / n;
  const auto percentile = [&](double p) { return seconds.empty() ? 0 : Percentile(seconds, p) * 1000; };
  json["mean_" + name + "_ms"] = mean * 1000;
  json["median_" + name + "_ms"] = percentile(0.5);
  json["std_" + name + "_ms"] = std::sqrt(squares) * 1000;
  for (const int p : kPercentiles) json["p" + std::to_string(p) + "_" + name + "_ms"] = percentile(p / 100.0);
}

// What vLLM computes over the successful requests, in seconds.
struct Samples {
  std::vector<double> ttft, tpot, itl, e2el, queue, e2el_with_queue;
};

// The arrays: one entry a request.
void AddRequest(const Record& r, Json& json, Samples& samples) {
  const std::vector<double> gaps = Gaps(r);
  const double ttft = r.ok() && !r.token_ns.empty() ? Seconds(r.first_token_ns() - r.sent_ns) : 0;
  const double latency = LatencyOf(r), queue = r.sent_ns >= 0 ? Seconds(r.sent_ns - r.scheduled_ns) : 0;
  const int64_t length = OutputLength(r);
  json["input_lens"].push_back(std::max<int64_t>(r.prompt_tokens, 0));
  json["output_lens"].push_back(length);
  json["ttfts"].push_back(ttft);
  json["itls"].push_back(gaps);
  json["latencies"].push_back(latency);
  json["start_times"].push_back(Seconds(std::max<int64_t>(r.sent_ns, 0)));
  json["queue_times"].push_back(queue);
  json["generated_texts"].push_back(ReplaceInvalidUtf8(r.text));
  const std::string code = absl::StatusCodeToString(r.code);
  json["errors"].push_back(r.ok() ? "" : ReplaceInvalidUtf8(r.error.empty() ? code : r.error));
  if (!r.ok()) return;
  samples.ttft.push_back(ttft);
  if (length > 1) samples.tpot.push_back((latency - ttft) / static_cast<double>(length - 1));
  samples.itl.insert(samples.itl.end(), gaps.begin(), gaps.end());
  samples.e2el.push_back(latency);
  samples.queue.push_back(queue);
  samples.e2el_with_queue.push_back(latency + queue);
}

std::string Environment(const Summary& summary, const std::string& key) {
  const auto found = summary.environment.find(key);
  return found == summary.environment.end() ? "" : ReplaceInvalidUtf8(found->second);
}

// What was asked for; goodput and concurrency over all levels of the arm.
void AddTotals(const Summary& summary, const std::string& arm, Json& json) {
  double duration = 0, good = 0, max_tokens = 0;
  int64_t peak = 0;
  json["request_rate"] = "inf";
  json["max_concurrency"] = nullptr;
  for (const Cell& cell : summary.cells) {
    if (cell.arm != arm) continue;
    duration += cell.duration_s;
    good += cell.goodput_per_s * cell.duration_s;
    peak = std::max(peak, cell.peak_concurrency);
    json[cell.open_loop ? "request_rate" : "max_concurrency"] = cell.offered;
  }
  if (const auto seconds = summary.timeline.find(arm); seconds != summary.timeline.end()) {
    for (const Second& s : seconds->second) max_tokens = std::max(max_tokens, static_cast<double>(s.output_tokens));
  }
  json["duration"] = duration;
  json["request_goodput"] = std::isfinite(good) && duration > 0 ? Json(good / duration) : Json(nullptr);
  json["max_output_tokens_per_s"] = max_tokens;
  json["max_concurrent_requests"] = peak;
}

// "2026-11-22T19:40:00Z" as vLLM writes it: "20261122-194000".
std::string Date(std::string time) {
  std::erase_if(time, [](char c) { return c == '-' || c == ':' || c == 'Z'; });
  std::replace(time.begin(), time.end(), 'T', '-');
  return time;
}

}  // namespace

Json VllmJson(const Run& run, const Summary& summary, const std::string& arm) {
  const std::string named = Environment(summary, "model");
  const std::string model = named.empty() ? Environment(summary, "model_sha256") : named;
  Json json = {{"date", Date(Environment(summary, "time"))},
               {"endpoint_type", "sluice-bench"},
               {"backend", "sluice-bench"},
               {"label", ReplaceInvalidUtf8(arm)},
               {"model_id", model},
               {"tokenizer_id", model}};
  for (const char* array : {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times",
                            "generated_texts", "errors"}) {
    json[array] = Json::array();
  }
  Samples samples;
  int64_t completed = 0, failed = 0, input = 0, output = 0;
  for (const Record& r : run.records) {
    const bool cancelled = r.planned_cancel && r.code == absl::StatusCode::kCancelled;
    if (r.arm != arm || r.warmup || cancelled) continue;
    AddRequest(r, json, samples);
    ++(r.ok() ? completed : failed);
    input += r.ok() ? std::max<int64_t>(r.prompt_tokens, 0) : 0;
    output += OutputLength(r);
  }
  AddTotals(summary, arm, json);
  const double duration = json["duration"];
  const auto rate = [&](int64_t n) { return duration > 0 ? static_cast<double>(n) / duration : 0; };
  json["num_prompts"] = completed + failed;
  json["completed"] = completed;
  json["failed"] = failed;
  json["total_input_tokens"] = input;
  json["total_output_tokens"] = output;
  json["request_throughput"] = rate(completed);
  json["output_throughput"] = rate(output);
  json["total_token_throughput"] = rate(input + output);
  AddStatistics("ttft", std::move(samples.ttft), json);
  AddStatistics("tpot", std::move(samples.tpot), json);
  AddStatistics("itl", std::move(samples.itl), json);
  AddStatistics("e2el", std::move(samples.e2el), json);
  AddStatistics("client_queue_time", std::move(samples.queue), json);
  AddStatistics("e2el_including_client_queue", std::move(samples.e2el_with_queue), json);
  return json;
}

}  // namespace sluice::loadtest
