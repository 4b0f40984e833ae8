#include "loadtest/session.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "base/digest.h"
#include "base/status.h"
#include "fmt/format.h"
#include "loadtest/arrivals.h"
#include "loadtest/environment.h"
#include "loadtest/runner.h"
#include "loadtest/stress.h"

namespace sluice::loadtest {
namespace {

constexpr int kPriority = -5;  // needs a privilege; without it the lag says what it costs
constexpr Duration kReadyTimeout = std::chrono::seconds(120);

std::string LastLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  std::string text;
  for (size_t i = lines.size() > 8 ? lines.size() - 8 : 0; i < lines.size(); ++i) text += "\n  | " + lines[i];
  return text;
}

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a + 0x9E3779B97F4A7C15U * (b + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

struct Arm {
  const EngineSpec& spec;
  std::unique_ptr<EngineProcess> process;  // null: addressed by URL
  std::unique_ptr<Target> target;
};

class Session {
 public:
  Session(const SessionOptions& options, Scenario scenario, const std::atomic<bool>& stop)
      : options_(options), scenario_(std::move(scenario)), stop_(stop), epoch_(clock_.Now()), loop_(clock_) {}

  absl::Status Prepare();
  absl::Status Run();

 private:
  absl::Status StartEngine(const EngineSpec& spec);
  absl::Status Describe(const Arm& arm, std::map<std::string, std::string>& environment) const;
  void RunBlock(Arm& arm, int block, int level, double offered);
  void RunStress(Arm& arm);
  BlockHooks Hooks(Arm& arm, int block, int level);
  void AddFaults(Arm& arm, BlockHooks& hooks);
  void AfterFaults(Arm& arm);
  void Show(const std::string& what, const Progress& p);
  std::vector<double> Levels() const;
  int64_t NowNs() const { return (clock_.Now() - epoch_).count(); }

  const SessionOptions& options_;
  const Scenario scenario_;
  const std::atomic<bool>& stop_;
  const SystemClock clock_;
  const MonoTime epoch_;
  EventLoop loop_;
  std::vector<GivenPrompt> prompts_;
  std::vector<Duration> trace_;
  std::unique_ptr<RunWriter> writer_;
  std::vector<Arm> arms_;
  double shown_at_s_ = -100;
};

absl::Status Session::StartEngine(const EngineSpec& spec) {
  Arm arm{.spec = spec};
  std::string token = spec.token;
  if (token.starts_with('$')) {  // so that files and reports need not hold it
    const char* value = std::getenv(token.c_str() + 1);
    if (value == nullptr) return absl::InvalidArgumentError(spec.name + ": the variable " + token + " is not set");
    token = value;
  }
  TargetOptions target{.url = spec.url,
                       .model = spec.model,
                       .token = token,
                       .ca_file = spec.ca_file,
                       .headers = spec.headers,
                       .body_json = spec.body_json};
  if (!spec.start.empty()) {
    SLUICE_ASSIGN_OR_RETURN(arm.process, EngineProcess::Start(spec, options_.files));
    target.url = arm.process->url();
    std::fprintf(stderr, "starting %s: %s\n", spec.name.c_str(), arm.process->command().c_str());
  }
  const bool closed = scenario_.load.mode == LoadSpec::Mode::kClosed;
  target.connections = closed ? std::max(4, scenario_.load.concurrency / 100) : 16;
  SLUICE_ASSIGN_OR_RETURN(arm.target, MakeTarget(target, loop_, clock_, epoch_));
  // In slices, so that an engine that died is noticed at once.
  absl::Status ready;
  const MonoTime give_up = clock_.Now() + kReadyTimeout;
  while (true) {
    ready = arm.target->Check(arm.process == nullptr ? std::chrono::seconds(10) : std::chrono::seconds(2), stop_);
    if (arm.process != nullptr && !arm.process->alive()) {
      return absl::UnavailableError(fmt::format("engine '{}' ended with {} before it was ready:{}", spec.name,
                                                arm.process->ended(), LastLines(arm.process->log_file())));
    }
    if (arm.process == nullptr || !absl::IsUnavailable(ready) || clock_.Now() > give_up || stop_) break;
    const MonoTime again = clock_.Now() + std::chrono::milliseconds(100);
    loop_.Run([&] { return clock_.Now() >= again; });
  }
  if (!ready.ok()) {
    return absl::Status(ready.code(), absl::string_view(fmt::format("engine '{}' at {}: {}", spec.name, target.url,
                                                                    std::string(ready.message()))));
  }
  arms_.push_back(std::move(arm));
  return absl::OkStatus();
}

absl::Status Session::Prepare() {
  // Beside an engine that keeps every core busy, the generator would be late for its own schedule. Threads inherit it.
  (void)setpriority(PRIO_PROCESS, 0, kPriority);
  if (!scenario_.workload.prompts_file.empty()) {
    SLUICE_ASSIGN_OR_RETURN(prompts_, ReadPrompts(scenario_.workload.prompts_file));
  }
  for (const std::string& prompt : scenario_.workload.prompts) prompts_.push_back({.text = prompt});
  if (!scenario_.load.trace_file.empty()) {
    SLUICE_ASSIGN_OR_RETURN(trace_, ReadTrace(scenario_.load.trace_file));
  }
  std::filesystem::create_directories(options_.out_folder);
  loadtest::Run run{.environment = DescribeMachine(),
                    .scenario = scenario_.name,
                    .scenario_yaml = options_.scenario_text,
                    .quick = options_.quick,
                    .overrides = options_.overrides};
  run.environment["command"] = options_.command_line;
  run.environment["generator_priority"] = std::to_string(getpriority(PRIO_PROCESS, 0));
  absl::Status ready;
  for (const EngineSpec& spec : scenario_.engines) {
    if (ready.ok()) ready = StartEngine(spec);
    if (ready.ok()) ready = Describe(arms_.back(), run.environment);
  }
  if (!ready.ok() && !stop_) return ready;  // interrupted: a run without blocks, which says so
  SLUICE_ASSIGN_OR_RETURN(writer_, RunWriter::Open(options_.out_folder + "/run.jsonl"));
  writer_->Begin(run);
  return absl::OkStatus();
}

// What reports say of an arm.
absl::Status Session::Describe(const Arm& arm, std::map<std::string, std::string>& environment) const {
  const EngineSpec& spec = arm.spec;
  environment["engine." + spec.name] = arm.process == nullptr ? spec.url : arm.process->command();
  if (spec.slots > 0) {
    environment["geometry." + spec.name] = fmt::format("{} slots × {} tokens", spec.slots, spec.slot_context);
  }
  const std::string model = spec.model_file.empty() ? options_.files.model_file : spec.model_file;
  if (arm.process != nullptr && !model.empty() && !model.starts_with("synthetic:")) {
    environment["model"] = std::filesystem::path(model).filename().string();
    SLUICE_ASSIGN_OR_RETURN(environment["model_sha256"], Sha256OfFile(model));
  }
  for (const auto& [name, value] : spec.env) {
    // Our own switches, which say what was compared; anything else could be a secret.
    const bool ours = name.starts_with("PHASE5_") || name.starts_with("SLUICE_");
    environment["env." + spec.name + "." + name] = ours ? value : "(set)";
  }
  return absl::OkStatus();
}

void Session::Show(const std::string& what, const Progress& p) {
  const double now = 1e-9 * static_cast<double>(NowNs());
  if (!options_.terminal && now - shown_at_s_ < 10) return;
  shown_at_s_ = now;
  std::string left;
  if (p.planned_s > p.elapsed_s) left = fmt::format(", {:.0f} s left", p.planned_s - p.elapsed_s);
  if (p.planned_s == 0 && p.planned > 0 && p.done > 0) {
    left = fmt::format(
        ", about {:.0f} s left",
        p.elapsed_s * static_cast<double>(std::max<int64_t>(0, p.planned - p.done)) / static_cast<double>(p.done));
  }
  const double elapsed = std::max(0.001, p.elapsed_s);
  std::fprintf(stderr, "%s%s\n", options_.terminal ? "\033[1A\033[2K" : "",
               fmt::format("{}: {:.1f} requests/s, {:.0f} tokens/s, {} in flight, {} done, {} failed{}", what,
                           static_cast<double>(p.done) / elapsed, static_cast<double>(p.tokens) / elapsed, p.in_flight,
                           p.done, p.failed, left)
                   .c_str());
}

void Session::AddFaults(Arm& arm, BlockHooks& hooks) {
  for (const FaultSpec& fault : scenario_.faults) {
    const bool stall = fault.action == FaultSpec::Action::kStall;
    const char* name = stall ? "stall" : fault.action == FaultSpec::Action::kKill ? "kill" : "restart";
    hooks.timed.emplace_back(fault.at, [&arm, fault, stall] {
      if (fault.action != FaultSpec::Action::kRestart) arm.process->Signal(stall ? SIGSTOP : SIGKILL);
    });
    hooks.timed.emplace_back(fault.at + fault.length, [this, &arm, fault, stall, name] {
      if (stall) {
        arm.process->Signal(SIGCONT);
      } else if (const auto status = arm.process->Restart(); !status.ok()) {
        std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
      }
      writer_->Add(FaultEvent{arm.spec.name, name, NowNs() - fault.length.count(), NowNs()});
    });
  }
}

// Whatever the block's end cut off is made good.
void Session::AfterFaults(Arm& arm) {
  if (scenario_.faults.empty() || arm.process == nullptr) return;
  arm.process->Signal(SIGCONT);
  if (!arm.process->alive() && !stop_) (void)arm.process->Restart();
}

BlockHooks Session::Hooks(Arm& arm, int block, int level) {
  BlockHooks hooks;
  std::string what = arm.spec.name;
  if (scenario_.load.blocks > 1) what += fmt::format(", block {}/{}", block + 1, scenario_.load.blocks);
  if (scenario_.load.levels.size() > 1) what += fmt::format(", level {}/{}", level + 1, scenario_.load.levels.size());
  hooks.progress = [this, what](const Progress& p) { Show(what, p); };
  if (arm.process != nullptr) {
    hooks.sample = [this, &arm](int64_t now_ns) { writer_->Add(arm.process->Sample(now_ns)); };
    AddFaults(arm, hooks);
  }
  return hooks;
}

void Session::RunBlock(Arm& arm, int block, int level, double offered) {
  const auto shared = [&] {
    return std::count_if(scenario_.engines.begin(), scenario_.engines.end(),
                         [&](const EngineSpec& e) { return !e.url.empty() && e.url == arm.spec.url; }) > 1;
  };
  // Arms get the same requests, unless they are one server, which could have them cached.
  uint64_t seed = Mix(Mix(scenario_.seed, static_cast<uint64_t>(block)), static_cast<uint64_t>(level));
  if (shared()) seed = Mix(seed, std::hash<std::string>()(arm.spec.name));
  if (options_.terminal) std::fputs("\n", stderr);
  Runner runner(scenario_, prompts_, loop_, clock_, epoch_, *writer_, stop_);
  runner.Run({.arm = arm.spec.name, .block = block, .level = level, .offered = offered, .trace = trace_, .seed = seed},
             *arm.target, Hooks(arm, block, level));
  AfterFaults(arm);
}

std::vector<double> Session::Levels() const {
  if (!scenario_.load.levels.empty()) return scenario_.load.levels;
  const bool closed = scenario_.load.mode == LoadSpec::Mode::kClosed;
  return {closed ? static_cast<double>(scenario_.load.concurrency) : scenario_.load.rate};
}

// Up through the levels until one fails.
void Session::RunStress(Arm& arm) {
  const std::vector<double> levels = Levels();
  for (size_t level = 0; level < levels.size() && !stop_; ++level) {
    RunBlock(arm, 0, static_cast<int>(level), levels[level]);
    if (arm.process != nullptr) writer_->Add(arm.process->Sample(NowNs()));
    loadtest::Run run;
    Scenario scenario;
    if (!writer_->Flush().ok()) return;
    const auto summary = SummarizeFile(options_.out_folder + "/run.jsonl", &run, &scenario);
    if (!summary.ok()) return;
    for (const Cell& cell : summary->cells) {
      if (cell.arm != arm.spec.name || cell.level != static_cast<int>(level)) continue;
      std::fprintf(stderr, "%s at %g: %s\n", cell.arm.c_str(), cell.offered, cell.failure_mode.c_str());
      if (cell.failure_mode != "none") return;
    }
  }
}

absl::Status Session::Run() {
  if (scenario_.kind == Scenario::Kind::kStress) {
    for (Arm& arm : arms_) RunStress(arm);
  } else {
    const std::vector<double> levels = Levels();
    for (size_t level = 0; level < levels.size(); ++level) {
      for (int block = 0; block < scenario_.load.blocks; ++block) {
        for (const size_t a : ArmOrder(arms_.size(), block)) {
          if (!stop_) RunBlock(arms_[a], block, static_cast<int>(level), levels[level]);
        }
      }
    }
  }
  writer_->End(stop_ ? "interrupted" : "complete");
  return writer_->status();
}

}  // namespace

std::vector<size_t> ArmOrder(size_t arms, int block) {
  std::vector<size_t> order(arms);
  for (size_t i = 0; i < arms; ++i) order[i] = block % 2 == 0 ? i : arms - 1 - i;
  return order;
}

absl::Status RunScenario(const SessionOptions& options, Scenario scenario, const std::atomic<bool>& stop) {
  Session session(options, std::move(scenario), stop);
  SLUICE_RETURN_IF_ERROR(session.Prepare());
  return session.Run();
}

absl::StatusOr<Summary> SummarizeFile(const std::string& run_file, Run* run, Scenario* scenario) {
  SLUICE_ASSIGN_OR_RETURN(*run, ReadRun(run_file));
  SLUICE_ASSIGN_OR_RETURN(*scenario, ParseScenario(run->scenario, run->scenario_yaml, run->quick, run->overrides));
  return Summarize(*run, *scenario);
}

}  // namespace sluice::loadtest
