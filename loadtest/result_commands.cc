// compare, plot, components: what needs no load.
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/files.h"
#include "base/status.h"
#include "fmt/format.h"
#include "loadtest/commands.h"
#include "loadtest/report_files.h"
#include "loadtest/report_text.h"
#include "loadtest/session.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

namespace fs = std::filesystem;

// What compare needs of a report: arm → scalar → value of each block.
using Blocks = std::map<std::string, std::map<std::string, std::vector<double>>>;

struct Side {
  std::string name, fingerprint, scenario;
  Blocks arms;
};

// report.json, or the folder that holds it.
absl::StatusOr<Side> ReadSide(std::string path) {
  if (fs::is_directory(path)) path += "/report.json";
  SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  Side side{.name = path};
  try {
    const auto json = nlohmann::json::parse(text);
    side.scenario = json.at("scenario");
    side.fingerprint = json.at("environment").value("fingerprint", "");
    for (const auto& cell : json.at("cells")) {
      const int level = cell.at("level");
      const std::string arm = cell.at("arm").get<std::string>() + (level == 0 ? "" : fmt::format(" level {}", level));
      for (const auto& [metric, values] : cell.at("per_block").items()) {
        for (const auto& v : values) {
          if (v.is_number()) side.arms[arm][metric].push_back(v);
        }
      }
    }
  } catch (const nlohmann::json::exception& e) {
    return absl::InvalidArgumentError(fmt::format("{} is no report.json of sluice-bench: {}", path, e.what()));
  }
  return side;
}

std::string RatioText(const Estimate& r) {
  if (!r.known()) return "not comparable";
  if (!r.has_interval()) return fmt::format("{:.3f} (no interval: fewer than two blocks)", r.value);
  const char* say = r.low > 1 ? "higher" : r.high < 1 ? "lower" : "no difference shown";
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]  {}", r.value, r.low, r.high, say);
}

void PrintComparison(const Side& a, const Side& b) {
  for (const auto& [arm, metrics] : a.arms) {
    // Two runs of one arm each may name it differently (two versions, two engines).
    auto other = b.arms.find(arm);
    if (other == b.arms.end() && a.arms.size() == 1 && b.arms.size() == 1) other = b.arms.begin();
    if (other == b.arms.end()) {
      std::printf("%s: not in %s\n", arm.c_str(), b.name.c_str());
      continue;
    }
    std::printf("%s / %s\n", other->first.c_str(), arm.c_str());
    for (const auto& [metric, values] : metrics) {
      const auto it = other->second.find(metric);
      if (it == other->second.end() || metric == "success_rate") continue;
      const Estimate ratio = UnpairedRatio(it->second, values);
      if (ratio.known()) {
        std::printf("  %-24s %12.3f → %-12.3f %s\n", metric.c_str(), MeanEstimate(values).value,
                    MeanEstimate(it->second).value, RatioText(ratio).c_str());
      }
    }
  }
}

}  // namespace

const Command& CompareSpec() {
  static const Command spec = {
      .name = "compare",
      .operands = "A B",
      .summary = "two results (report.json, or their folders): ratio B / A of every number, with its interval",
      .options = {{"--any-machine", "", "compare although the machines differ"}},
      .examples = "  sluice-bench compare loadtest/results/ttft-old loadtest/results/ttft-new\n"};
  return spec;
}

int CompareCommand(const Context& /*context*/, const Args& args) {
  if (args.operands().size() != 2) return Fail(absl::InvalidArgumentError("two results are needed: A B"));
  const auto a = ReadSide(args.operands()[0]), b = ReadSide(args.operands()[1]);
  if (!a.ok()) return Fail(a.status());
  if (!b.ok()) return Fail(b.status());
  if (a->scenario != b->scenario) {
    return Fail(
        absl::InvalidArgumentError(fmt::format("different scenarios: '{}' and '{}'", a->scenario, b->scenario)));
  }
  if (a->fingerprint != b->fingerprint && !args.Has("--any-machine")) {
    return Fail(absl::InvalidArgumentError(
        fmt::format("different machines: '{}' and '{}'; --any-machine compares them all the same", a->fingerprint,
                    b->fingerprint)));
  }
  PrintComparison(*a, *b);
  return kExitReached;
}

const Command& PlotSpec() {
  static const Command spec = {.name = "plot",
                               .operands = "RUN",
                               .summary = "write all reports again from a run.jsonl (or its folder)",
                               .options = {},
                               .examples = "  sluice-bench plot loadtest/results/ttft-2026-01-31T120000Z\n"};
  return spec;
}

int PlotCommand(const Context& /*context*/, const Args& args) {
  if (args.operands().size() != 1) return Fail(absl::InvalidArgumentError("one RUN is needed"));
  fs::path path = args.operands()[0];
  if (fs::is_directory(path)) path /= "run.jsonl";
  Run run;
  Scenario scenario;
  const auto summary = SummarizeFile(path.string(), &run, &scenario);
  if (!summary.ok()) return Fail(summary.status());
  const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
  if (const auto status = WriteReports(folder, run, *summary); !status.ok()) return Fail(status);
  std::fputs(TextReport(*summary).c_str(), stdout);
  return summary->exit_code();
}

const Command& ComponentsSpec() {
  static const Command spec = {
      .name = "components",
      .operands = "[-- OPTIONS]",
      .summary = "benchmark gate, QoS, scheduler, sampler and the edge alone (google-benchmark)",
      .options = {},
      .examples = "  sluice-bench components -- --benchmark_filter=Gate\n"};
  return spec;
}

int ComponentsCommand(const Context& /*context*/, const Args& args) {
  std::error_code ignored;
  const std::string program =
      (fs::read_symlink("/proc/self/exe", ignored).parent_path() / "sluice-components").string();
  std::vector<std::string> texts = {program};
  texts.insert(texts.end(), args.operands().begin(), args.operands().end());
  std::vector<char*> argv;
  for (std::string& t : texts) argv.push_back(t.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  return Fail(absl::NotFoundError("cannot run " + program + ": build the target sluice-components"));
}

}  // namespace sluice::loadtest
