// What replicas write about rollouts into the state store, beside the states themselves. All JSON.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "rollout/analysis/window.h"

namespace sluice::rollout {

// Keys. "rollouts/leader" belongs to the election.
inline constexpr std::string_view kRoot = "rollouts/";
inline constexpr std::string_view kReplicas = "rollouts/replica/";  // one of each replica, gone with its session
std::string ReplicaKey(std::string_view replica);
std::string StateKey(std::string_view flag);  // RolloutState
std::string TripPrefix(std::string_view flag);
std::string TripKey(std::string_view flag, uint64_t attempt);                        // Trip
std::optional<uint64_t> AttemptOfTrip(std::string_view key, std::string_view flag);  // nullopt: no such key
std::string AnalysisKey(std::string_view flag);  // Analysis, with the index it has judged
std::string EvidencePrefix(std::string_view flag);
std::string EvidenceKey(std::string_view flag, uint64_t epoch);  // Evidence; sorts by epoch

// One replica, now.
struct ReplicaRecord {
  struct OfFlag {
    uint64_t epoch = 0;                 // of the state that it serves
    std::vector<Window> windows;        // its newest, the oldest first
    std::vector<std::string> examples;  // requests of the canary that failed
  };
  static constexpr size_t kMaxWindows = 4;

  std::string replica;
  WallTime now{};  // by its own window clock
  std::map<std::string, OfFlag> flags;
};
std::string Encode(const ReplicaRecord& record);
absl::StatusOr<ReplicaRecord> DecodeReplicaRecord(std::string_view text);  // DATA_LOSS

// A replica took an attempt to 0 % by itself.
struct Trip {
  std::string replica, why;
  WallTime when{};
  std::vector<std::string> examples;
};
std::string Encode(const Trip& trip);
absl::StatusOr<Trip> DecodeTrip(std::string_view text);  // DATA_LOSS

}  // namespace sluice::rollout
