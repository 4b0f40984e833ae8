// What one replica saw of a rollout's two arms in one window of time: the unit in which telemetry is judged and shared.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/sketch.h"

namespace sluice::rollout {

enum class Arm { kBaseline, kCanary };
inline constexpr size_t kArms = 2;

// Latencies are compared among prompts of like length: stratum i holds prompts of up to kStrataTokens[i] tokens, the
// last one all longer ones.
inline constexpr std::array<int, 3> kStrataTokens = {64, 256, 1024};
inline constexpr size_t kStrata = kStrataTokens.size() + 1;

// Counted by the *assigned* arm. Client faults, cancels and refusals before the pipeline are no requests here.
struct ArmWindow {
  uint64_t requests = 0;     // that ended
  uint64_t events = 0;       // of them the first of each user: what the statistics count
  uint64_t failures = 0;     // of the events
  uint64_t first_users = 0;  // of the events those whose user this replica had not seen in this attempt
  uint64_t crashes = 0;      // requests in flight when this replica's process died before; told once, by the next start
  std::array<Sketch, kStrata> ttft_ms, latency_ms;  // of the events that succeeded
  double memory_bytes = 0;                          // byte accounts of the arm at the window's end; 0: not known
};

// A value.
struct Window {
  std::string attempt;                // of the rollout: what was seen under another one is never mixed in
  std::string replica;                // who saw it
  int64_t index = 0;                  // wall time since the epoch / length, so that replicas agree on it
  Duration length{};                  // > 0
  uint32_t canary_bps = 0;            // the share in force; 0.01 %
  bool mixed = false;                 // the share changed meanwhile: nothing is judged by this window
  std::array<ArmWindow, kArms> arms;  // by Arm
  double rss_bytes = 0;               // of the process at the window's end; 0: not known
};

}  // namespace sluice::rollout
