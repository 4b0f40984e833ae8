#include "services/cli/rollout_simulate.h"

#include <cstdio>
#include <mutex>
#include <optional>
#include <string>

#include "base/machine_limits.h"
#include "config/values.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "rollout/analysis/simulation.h"
#include "services/cli/client.h"

namespace sluice::cli {
namespace {

int Usage(const std::string& text) {
  std::fprintf(stderr, "sluicectl rollout simulate: %s; see sluicectl rollout --help\n", text.c_str());
  return kUsage;
}

// Reads a number within its range, if it is given; false: said what is wrong.
bool Read(const Args& args, const char* name, double min, double max, double scale, double* out) {
  const std::string text = args.Get(name);
  if (text.empty()) return true;
  const auto parsed = config::ParseNumber(text, min, max);
  if (!parsed.value) {
    Usage(fmt::format("{}: {}; allowed: {:g} to {:g}", name, parsed.what, min, max));
    return false;
  }
  *out = *parsed.value * scale;
  return true;
}

void PrintTable(const rollout::SimulationOptions& o, const rollout::SimulationResult& result) {
  std::printf("%s\n", fmt::format("{} trials of {:g} min, {:g} requests/s, {:g} % canary, base error {:g} %, errors "
                                  "{:g}x, latency {:g}x, alpha {:g}, seed {}",
                                  o.trials, ToSeconds(o.duration) / 60, o.requests_per_second, o.canary_bps / 100.0,
                                  o.base_error * 100, o.error_ratio, o.latency_ratio, o.analysis.alpha, o.seed)
                          .c_str());
  std::printf("  %-18s %8s  %-18s %22s %10s\n", "rule", "alarms", "share, 95 %", "canary requests (p50)", "time (p50)");
  for (const rollout::RuleResult& r : result.rules) {
    std::printf("  %-18s %8d  %-18s %22s %10s\n", r.rule.c_str(), r.alarms,
                fmt::format("{:.1f} to {:.1f} %", r.low * 100, r.high * 100).c_str(),
                r.alarms == 0 ? "-" : fmt::format("{:.0f}", r.median_canary_requests).c_str(),
                r.alarms == 0 ? "-" : fmt::format("{:.0f} s", r.median_seconds).c_str());
  }
}

std::string Json(const rollout::SimulationOptions& o, const rollout::SimulationResult& result) {
  nlohmann::json rules = nlohmann::json::array();
  for (const rollout::RuleResult& r : result.rules) {
    rules.push_back({{"rule", r.rule},
                     {"alarms", r.alarms},
                     {"low", r.low},
                     {"high", r.high},
                     {"median_canary_requests", r.median_canary_requests},
                     {"median_seconds", r.median_seconds}});
  }
  return nlohmann::json({{"trials", result.trials},
                         {"seed", o.seed},
                         {"canary_requests", result.canary_requests},
                         {"rules", std::move(rules)}})
      .dump();
}

}  // namespace

int RolloutSimulate(const Args& args) {
  rollout::SimulationOptions o;
  double share = 10, trials = o.trials, seed = 1, minutes = 60;
  const bool good =
      Read(args, "--rate", 0.1, 10'000, 1, &o.requests_per_second) && Read(args, "--share", 0.01, 99.99, 1, &share) &&
      Read(args, "--base-error", 0, 50, 0.01, &o.base_error) && Read(args, "--errors", 0, 1'000, 1, &o.error_ratio) &&
      Read(args, "--latency", 0.01, 1'000, 1, &o.latency_ratio) && Read(args, "--sigma", 0.01, 3, 1, &o.sigma) &&
      Read(args, "--alpha", 1e-9, 0.5, 1, &o.analysis.alpha) && Read(args, "--minutes", 1, 1'440, 1, &minutes) &&
      Read(args, "--trials", 1, 1e6, 1, &trials) && Read(args, "--seed", 0, 1e9, 1, &seed);
  if (!good) return kUsage;
  o.canary_bps = static_cast<uint32_t>(share * 100 + 0.5);
  o.trials = static_cast<int>(trials);
  o.seed = static_cast<uint64_t>(seed);
  o.duration = FromMillis(minutes * 60'000);
  o.threads = UsableCpus();
  std::mutex mu;
  int shown = 0;
  const auto result = rollout::Simulate(o, [&](int done) {
    const std::lock_guard lock(mu);
    if (done * 20 / o.trials <= shown && done < o.trials) return;
    shown = done * 20 / o.trials;
    std::fprintf(stderr, "\r%d of %d trials%s", done, o.trials, done == o.trials ? "\n" : "");
  });
  if (args.Has("--json")) {
    std::puts(Json(o, result).c_str());
  } else {
    PrintTable(o, result);
  }
  return kOk;
}

}  // namespace sluice::cli
