#include "services/qos_records.h"

#include <array>
#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::services {
namespace {

using nlohmann::json;
using qos::DecisionRecord;
using qos::JudgementRecord;
using qos::OutcomeRecord;

constexpr std::array kUses = {qos::PolicyUse::kOff, qos::PolicyUse::kDryRun, qos::PolicyUse::kEnforce};

int64_t Nanos(MonoTime t) { return t.time_since_epoch().count(); }
MonoTime TimeAt(const json& line, const char* key) { return MonoTime(Duration(line.at(key).get<int64_t>())); }

json Encode(const DecisionRecord& r) {
  json line = {{"kind", "decision"},
               {"id", r.id},
               {"at_ns", Nanos(r.at)},
               {"wall_ns", r.wall.time_since_epoch().count()},
               {"request_id", r.request_id},
               {"tenant", r.tenant},
               {"model", r.model},
               {"class", qos::QosClassName(r.qos_class)},
               {"key_hash", r.key_hash},
               {"prompt_tokens", r.prompt_tokens},
               {"max_tokens", r.max_tokens},
               {"prompt_bytes", r.prompt_bytes},
               {"ttft_objective_ns", r.ttft_objective.count()},
               {"load",
                {{"slots", r.load.slots},
                 {"running", r.load.running},
                 {"waiting", r.load.waiting},
                 {"uncomputed_prompt_tokens", r.load.uncomputed_prompt_tokens},
                 {"prefill_tokens_per_second", r.load.prefill_tokens_per_second},
                 {"decode_tokens_per_second", r.load.decode_tokens_per_second},
                 {"kv_usage", r.load.kv_usage}}},
               {"use", qos::PolicyUseName(r.use)},
               {"verdict", r.verdict},
               {"enforced", r.enforced},
               {"dry_run", r.dry_run},
               {"granted_max_tokens", r.granted_max_tokens},
               {"epoch", r.epoch}};
  if (r.time_left != Duration::max()) line["time_left_ns"] = r.time_left.count();
  return line;
}

json Encode(const OutcomeRecord& r) {
  const qos::RequestOutcome& o = r.outcome;
  json line = {{"kind", "outcome"},  {"at_ns", Nanos(o.ended)}, {"request_id", r.request_id},
               {"tenant", r.tenant}, {"model", r.model},        {"class", qos::QosClassName(o.qos_class)},
               {"counts", o.counts}, {"failed", o.failed},      {"output_tokens", o.output_tokens}};
  if (o.ttft) line["ttft_ns"] = o.ttft->count();
  if (o.tpot) line["tpot_ns"] = o.tpot->count();
  if (o.latency) line["latency_ns"] = o.latency->count();
  if (o.queue_wait) line["queue_wait_ns"] = o.queue_wait->count();
  return line;
}

json Encode(const JudgementRecord& r) {
  return {{"kind", "judgement"},      {"at_ns", Nanos(r.at)},         {"running", r.state.running},
          {"queued", r.state.queued}, {"kv_usage", r.state.kv_usage}, {"memory", r.state.memory},
          {"cpu", r.state.cpu}};
}

absl::StatusOr<qos::QosClass> ClassOf(const json& line) {
  const auto name = line.at("class").get<std::string>();
  const auto parsed = qos::ParseQosClass(name);
  if (!parsed) return absl::InvalidArgumentError(fmt::format("there is no class '{}'", name));
  return *parsed;
}

std::optional<Duration> Optional(const json& line, const char* key) {
  const auto it = line.find(key);
  if (it == line.end()) return std::nullopt;
  return Duration(it->get<int64_t>());
}

absl::StatusOr<qos::QosRecord> DecodeDecision(const json& line) {
  DecisionRecord r;
  line.at("id").get_to(r.id);
  r.at = TimeAt(line, "at_ns");
  r.wall = WallTime(Duration(line.at("wall_ns").get<int64_t>()));
  line.at("request_id").get_to(r.request_id);
  line.at("tenant").get_to(r.tenant);
  line.at("model").get_to(r.model);
  SLUICE_ASSIGN_OR_RETURN(r.qos_class, ClassOf(line));
  line.at("key_hash").get_to(r.key_hash);
  line.at("prompt_tokens").get_to(r.prompt_tokens);
  line.at("max_tokens").get_to(r.max_tokens);
  line.at("prompt_bytes").get_to(r.prompt_bytes);
  r.time_left = Optional(line, "time_left_ns").value_or(Duration::max());
  r.ttft_objective = Duration(line.at("ttft_objective_ns").get<int64_t>());
  const json& load = line.at("load");
  load.at("slots").get_to(r.load.slots);
  load.at("running").get_to(r.load.running);
  load.at("waiting").get_to(r.load.waiting);
  load.at("uncomputed_prompt_tokens").get_to(r.load.uncomputed_prompt_tokens);
  load.at("prefill_tokens_per_second").get_to(r.load.prefill_tokens_per_second);
  load.at("decode_tokens_per_second").get_to(r.load.decode_tokens_per_second);
  load.at("kv_usage").get_to(r.load.kv_usage);
  const auto use = line.at("use").get<std::string>();
  for (const qos::PolicyUse known : kUses) {
    if (use == qos::PolicyUseName(known)) r.use = known;
  }
  line.at("verdict").get_to(r.verdict);
  line.at("enforced").get_to(r.enforced);
  line.at("dry_run").get_to(r.dry_run);
  line.at("granted_max_tokens").get_to(r.granted_max_tokens);
  line.at("epoch").get_to(r.epoch);
  return r;
}

absl::StatusOr<qos::QosRecord> DecodeOutcome(const json& line) {
  OutcomeRecord r;
  line.at("request_id").get_to(r.request_id);
  line.at("tenant").get_to(r.tenant);
  line.at("model").get_to(r.model);
  qos::RequestOutcome& o = r.outcome;
  SLUICE_ASSIGN_OR_RETURN(o.qos_class, ClassOf(line));
  o.ended = TimeAt(line, "at_ns");
  line.at("counts").get_to(o.counts);
  line.at("failed").get_to(o.failed);
  line.at("output_tokens").get_to(o.output_tokens);
  o.ttft = Optional(line, "ttft_ns");
  o.tpot = Optional(line, "tpot_ns");
  o.latency = Optional(line, "latency_ns");
  o.queue_wait = Optional(line, "queue_wait_ns");
  return r;
}

JudgementRecord DecodeJudgement(const json& line) {
  JudgementRecord r{.at = TimeAt(line, "at_ns")};
  line.at("running").get_to(r.state.running);
  line.at("queued").get_to(r.state.queued);
  line.at("kv_usage").get_to(r.state.kv_usage);
  line.at("memory").get_to(r.state.memory);
  line.at("cpu").get_to(r.state.cpu);
  return r;
}

// Throws what nlohmann throws.
absl::StatusOr<qos::QosRecord> Decode(const std::string& kind, const json& line) {
  if (kind == "decision") return DecodeDecision(line);
  if (kind == "outcome") return DecodeOutcome(line);
  if (kind == "judgement") return DecodeJudgement(line);
  return absl::InvalidArgumentError(
      fmt::format("there is no kind '{}'; known: start, decision, outcome, judgement", kind));
}

}  // namespace

std::string EncodeQosRecord(const qos::QosRecord& record) {
  const json line = std::visit([](const auto& r) { return Encode(r); }, record);
  return line.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
}

std::string EncodeQosStart(WallTime now) {
  return json{{"kind", "start"}, {"wall_ns", now.time_since_epoch().count()}}.dump();
}

absl::StatusOr<QosLogSummary> ReadQosLog(const std::string& path,
                                         const std::function<void(const qos::QosRecord&)>& each) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(fmt::format("{}: cannot be read", path));
  QosLogSummary summary;
  std::streampos begin = 0;
  size_t first_line = 0, at = 0;
  std::string text;
  // Where does the last process begin?
  for (std::streampos line_begin = 0; std::getline(file, text); line_begin = file.tellg()) {
    ++at;
    if (text.find(R"("kind":"start")") == std::string::npos) continue;
    ++summary.sections;
    begin = line_begin;
    first_line = at - 1;
  }
  file.clear();
  file.seekg(begin);
  for (at = first_line; std::getline(file, text);) {
    ++at;
    absl::Status read;
    try {
      const json line = json::parse(text);
      const auto kind = line.at("kind").get<std::string>();
      if (kind == "start") continue;
      const absl::StatusOr<qos::QosRecord> record = Decode(kind, line);
      read = record.status();
      if (record.ok()) each(*record);
    } catch (const json::exception& e) {
      read = absl::InvalidArgumentError(e.what());
    }
    if (read.ok()) {
      ++summary.records;
      continue;
    }
    summary.torn = file.eof();  // no end of line: the process was cut off while it wrote
    if (summary.torn) break;
    return absl::InvalidArgumentError(fmt::format("{}:{}: {}", path, at, std::string(read.message())));
  }
  return summary;
}

}  // namespace sluice::services
