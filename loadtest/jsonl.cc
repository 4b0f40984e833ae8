#include "loadtest/jsonl.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/strings.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

using Json = nlohmann::json;

// Written by hand: one line a request, thousands a second, beside the measurement.
std::string Quoted(const std::string& text) { return Json(ReplaceInvalidUtf8(text)).dump(); }

Json ToJson(const Run& run) {
  return {{"type", "run"},      {"environment", run.environment}, {"scenario", run.scenario},
          {"quick", run.quick}, {"overrides", run.overrides},     {"scenario_yaml", run.scenario_yaml}};
}

Json ToJson(const BlockSample& b) {
  return {{"type", "block"},
          {"arm", b.arm},
          {"block", b.block},
          {"level", b.level},
          {"offered", b.offered},
          {"open_loop", b.open_loop},
          {"start_ns", b.start_ns},
          {"end_ns", b.end_ns},
          {"planned", b.planned},
          {"started", b.started},
          {"lag_p50_ms", b.lag_p50_ms},
          {"lag_p99_ms", b.lag_p99_ms},
          {"cpu_percent", b.cpu_percent},
          {"stopped", b.stopped},
          {"limited", b.limited}};
}

Record RecordOf(const Json& j) {
  Record r;
  j.at("index").get_to(r.index);
  j.at("arm").get_to(r.arm);
  j.at("block").get_to(r.block);
  j.at("level").get_to(r.level);
  j.at("warmup").get_to(r.warmup);
  r.id = j.value("id", "");
  r.tenant = j.value("tenant", "");
  r.user = j.value("user", "");
  r.priority_class = j.value("class", "");
  r.conversation = j.value("conversation", int64_t{-1});
  r.turn = j.value("turn", 0);
  r.planned_cancel = j.value("planned_cancel", false);
  r.slow_reader = j.value("slow_reader", false);
  j.at("scheduled_ns").get_to(r.scheduled_ns);
  j.at("sent_ns").get_to(r.sent_ns);
  j.at("token_ns").get_to(r.token_ns);
  j.at("done_ns").get_to(r.done_ns);
  j.at("prompt_tokens").get_to(r.prompt_tokens);
  j.at("cached_tokens").get_to(r.cached_tokens);
  j.at("output_tokens").get_to(r.output_tokens);
  r.server_queue_ms = j.value("server_queue_ms", -1.0);
  r.server_prefill_ms = j.value("server_prefill_ms", -1.0);
  r.server_ttft_ms = j.value("server_ttft_ms", -1.0);
  r.code = static_cast<absl::StatusCode>(j.at("code").get<int>());
  r.error = j.value("error", "");
  r.finish_reason = j.value("finish_reason", "");
  r.pipeline = j.value("pipeline", "");
  r.flags = j.value("flags", "");
  r.text = j.value("text", "");
  return r;
}

BlockSample BlockOf(const Json& j) {
  BlockSample b;
  j.at("arm").get_to(b.arm);
  j.at("block").get_to(b.block);
  j.at("level").get_to(b.level);
  j.at("offered").get_to(b.offered);
  j.at("open_loop").get_to(b.open_loop);
  j.at("start_ns").get_to(b.start_ns);
  j.at("end_ns").get_to(b.end_ns);
  j.at("planned").get_to(b.planned);
  j.at("started").get_to(b.started);
  j.at("lag_p50_ms").get_to(b.lag_p50_ms);
  j.at("lag_p99_ms").get_to(b.lag_p99_ms);
  j.at("cpu_percent").get_to(b.cpu_percent);
  b.stopped = j.value("stopped", "");
  j.at("limited").get_to(b.limited);
  return b;
}

// Adds one line to the run. Throws nlohmann's exceptions, which ReadRun turns into a status.
void Take(const Json& j, Run& run) {
  const std::string type = j.at("type");
  if (type == "request") {
    run.records.push_back(RecordOf(j));
  } else if (type == "block") {
    run.blocks.push_back(BlockOf(j));
  } else if (type == "resource") {
    run.resources.push_back({j.at("arm"), j.at("at_ns"), j.at("cpu_percent"), j.at("rss_bytes"), j.at("alive")});
  } else if (type == "fault") {
    run.faults.push_back({j.at("arm"), j.at("action"), j.at("start_ns"), j.at("end_ns")});
  } else if (type == "run") {
    j.at("environment").get_to(run.environment);
    j.at("scenario").get_to(run.scenario);
    j.at("quick").get_to(run.quick);
    j.at("overrides").get_to(run.overrides);
    j.at("scenario_yaml").get_to(run.scenario_yaml);
  } else if (type == "end") {
    j.at("how").get_to(run.ended);
    run.partial = run.ended != "complete";
  }
}

}  // namespace

std::string ToLine(const Record& r) {
  std::string line = fmt::format(
      R"({{"type":"request","index":{},"arm":{},"block":{},"level":{},"warmup":{},"scheduled_ns":{},"sent_ns":{},)"
      R"("first_token_ns":{},"last_token_ns":{},"done_ns":{},"prompt_tokens":{},"cached_tokens":{},"output_tokens":{},)"
      R"("code":{})",
      r.index, Quoted(r.arm), r.block, r.level, r.warmup, r.scheduled_ns, r.sent_ns, r.first_token_ns(),
      r.last_token_ns(), r.done_ns, r.prompt_tokens, r.cached_tokens, r.output_tokens, static_cast<int>(r.code));
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) line += fmt::format(R"(,"{}":{})", key, Quoted(value));
  };
  text("id", r.id);
  text("tenant", r.tenant);
  text("user", r.user);
  text("class", r.priority_class);
  if (r.conversation >= 0) line += fmt::format(R"(,"conversation":{},"turn":{})", r.conversation, r.turn);
  if (r.planned_cancel) line += R"(,"planned_cancel":true)";
  if (r.slow_reader) line += R"(,"slow_reader":true)";
  if (r.server_ttft_ms >= 0) {
    line += fmt::format(R"(,"server_queue_ms":{},"server_prefill_ms":{},"server_ttft_ms":{})", r.server_queue_ms,
                        r.server_prefill_ms, r.server_ttft_ms);
  }
  text("error", r.error);
  text("finish_reason", r.finish_reason);
  text("pipeline", r.pipeline);
  text("flags", r.flags);
  text("text", r.text);
  return line + fmt::format(R"(,"token_ns":[{}]}})", fmt::join(r.token_ns, ","));
}

absl::StatusOr<std::unique_ptr<RunWriter>> RunWriter::Open(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, absl::string_view("cannot write " + path));
  }
  return std::unique_ptr<RunWriter>(new RunWriter(file, path));
}

RunWriter::~RunWriter() {
  MutexLock lock(mutex_);
  std::fclose(file_);
}

void RunWriter::Write(const std::string& line) {
  MutexLock lock(mutex_);
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fputc('\n', file_) == EOF) failed_ = true;
}

void RunWriter::Begin(const Run& run) { Write(ToJson(run).dump()); }
void RunWriter::Add(const Record& record) { Write(ToLine(record)); }
void RunWriter::Add(const BlockSample& block) { Write(ToJson(block).dump()); }
void RunWriter::Add(const ResourceSample& s) {
  Write(Json{{"type", "resource"},
             {"arm", s.arm},
             {"at_ns", s.at_ns},
             {"cpu_percent", s.cpu_percent},
             {"rss_bytes", s.rss_bytes},
             {"alive", s.alive}}
            .dump());
}
void RunWriter::Add(const FaultEvent& e) {
  Write(Json{{"type", "fault"}, {"arm", e.arm}, {"action", e.action}, {"start_ns", e.start_ns}, {"end_ns", e.end_ns}}
            .dump());
}
void RunWriter::End(const std::string& how) {
  Write(Json{{"type", "end"}, {"how", how}}.dump());
  MutexLock lock(mutex_);
  if (std::fflush(file_) != 0) failed_ = true;
}

absl::Status RunWriter::Flush() {
  {
    MutexLock lock(mutex_);
    if (std::fflush(file_) != 0) failed_ = true;
  }
  return status();
}

absl::Status RunWriter::status() const {
  MutexLock lock(mutex_);
  return failed_ ? absl::DataLossError("writing " + path_ + " failed: is the disk full?") : absl::OkStatus();
}

absl::StatusOr<Run> ReadRun(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError("cannot read " + path);
  Run run;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    try {
      Take(Json::parse(line), run);
    } catch (const nlohmann::json::exception& e) {
      // A run that was killed may end within a line.
      if (file.peek() == EOF && number > 1) break;
      return absl::InvalidArgumentError(fmt::format("{}:{}: not a line of a run: {}", path, number, e.what()));
    }
  }
  if (run.scenario_yaml.empty()) {
    return absl::InvalidArgumentError(path + ": no line of type 'run': not a file of sluice-bench");
  }
  return run;
}

}  // namespace sluice::loadtest
