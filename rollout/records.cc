#include "rollout/records.h"

#include "absl/strings/numbers.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "rollout/analysis/window_codec.h"
#include "rollout/json_fields.h"

namespace sluice::rollout {
namespace {

using nlohmann::json;

constexpr size_t kMaxExamples = 64, kMaxFlags = 32;

std::string Dump(const json& object) { return object.dump(-1, ' ', false, json::error_handler_t::replace); }

bool ReadOfFlag(const json& object, ReplicaRecord::OfFlag* out) {
  JsonFields fields(object);
  fields.Number("epoch", &out->epoch);
  fields.Texts("examples", kMaxExamples, &out->examples);
  std::vector<std::string> windows;
  fields.Texts("windows", ReplicaRecord::kMaxWindows, &windows);
  for (const std::string& text : windows) {
    auto window = DecodeWindow(text);
    if (!window.ok()) return false;
    out->windows.push_back(*std::move(window));
  }
  return fields.good();
}

}  // namespace

std::string ReplicaKey(std::string_view replica) { return fmt::format("{}{}", kReplicas, replica); }
std::string StateKey(std::string_view flag) { return fmt::format("{}flag/{}/state", kRoot, flag); }
std::string TripPrefix(std::string_view flag) { return fmt::format("{}flag/{}/trip/", kRoot, flag); }
std::string TripKey(std::string_view flag, uint64_t attempt) { return fmt::format("{}{}", TripPrefix(flag), attempt); }
std::optional<uint64_t> AttemptOfTrip(std::string_view key, std::string_view flag) {
  const std::string prefix = TripPrefix(flag);
  uint64_t attempt = 0;
  if (!key.starts_with(prefix) || !absl::SimpleAtoi(ToAbsl(key.substr(prefix.size())), &attempt)) return std::nullopt;
  return attempt;
}
std::string AnalysisKey(std::string_view flag) { return fmt::format("{}flag/{}/analysis", kRoot, flag); }
std::string EvidencePrefix(std::string_view flag) { return fmt::format("{}flag/{}/evidence/", kRoot, flag); }
std::string EvidenceKey(std::string_view flag, uint64_t epoch) {
  return fmt::format("{}{:020}", EvidencePrefix(flag), epoch);
}

std::string Encode(const ReplicaRecord& record) {
  json flags = json::object();
  for (const auto& [flag, of] : record.flags) {
    json windows = json::array();
    for (const Window& window : of.windows) windows.push_back(Encode(window));
    flags[flag] = {{"epoch", of.epoch}, {"windows", std::move(windows)}, {"examples", of.examples}};
  }
  return Dump(
      {{"replica", record.replica}, {"now", record.now.time_since_epoch().count()}, {"flags", std::move(flags)}});
}

absl::StatusOr<ReplicaRecord> DecodeReplicaRecord(std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  ReplicaRecord record;
  JsonFields fields(object);
  fields.Text("replica", &record.replica);
  fields.Time("now", &record.now);
  const json* const flags = fields.Find("flags");
  bool good = fields.good() && flags != nullptr && flags->is_object() && flags->size() <= kMaxFlags;
  if (good) {
    for (const auto& [flag, of] : flags->items()) good = good && ReadOfFlag(of, &record.flags[flag]);
  }
  if (!good) return absl::DataLossError("is no record of a replica");
  return record;
}

std::string Encode(const Trip& trip) {
  return Dump({{"replica", trip.replica},
               {"why", trip.why},
               {"when", trip.when.time_since_epoch().count()},
               {"examples", trip.examples}});
}

absl::StatusOr<Trip> DecodeTrip(std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  Trip trip;
  JsonFields fields(object);
  fields.Text("replica", &trip.replica);
  fields.Text("why", &trip.why);
  fields.Time("when", &trip.when);
  fields.Texts("examples", kMaxExamples, &trip.examples);
  if (!fields.good()) return absl::DataLossError("is no trip");
  return trip;
}

}  // namespace sluice::rollout
