// run, suite, engines, load: everything that drives load.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_join.h"
#include "base/files.h"
#include "base/status.h"
#include "fmt/format.h"
#include "loadtest/commands.h"
#include "loadtest/comparison.h"
#include "loadtest/environment.h"
#include "loadtest/regression.h"
#include "loadtest/report_files.h"
#include "loadtest/report_text.h"
#include "loadtest/session.h"
#include "nlohmann/json.hpp"

namespace sluice::loadtest {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuite[] = {"ttft", "throughput", "stress", "regression", "soak", "fault"};

fs::path OwnFolder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path();
}

std::string EnvironmentOr(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? fallback : value;
}

EngineFiles FilesOf(const Args& args) {
  return {.sluice_server = args.Get("--sluice-server", (OwnFolder() / "sluice-server").string()),
          .llama_server = args.Get("--llama-server", EnvironmentOr("SLUICE_BENCH_LLAMA_SERVER", "")),
          .model_file = args.Get("--model-file", EnvironmentOr("SLUICE_BENCH_MODEL", "")),
          .log_folder = ""};
}

// A path, or the name of a shipped scenario: of the checkout that we run in, or were built in.
absl::StatusOr<std::string> FindScenario(const std::string& name) {
  if (fs::is_regular_file(name)) return name;
  std::vector<std::string> names;
  for (const fs::path& folder : {fs::path("loadtest/scenarios"), OwnFolder() / "../../../loadtest/scenarios"}) {
    if (const fs::path path = folder / (name + ".yaml"); fs::is_regular_file(path)) {
      return path.lexically_normal().string();
    }
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) names.push_back(entry.path().stem().string());
    if (!names.empty()) break;
  }
  std::sort(names.begin(), names.end());
  return absl::NotFoundError(
      fmt::format("there is no scenario '{}': give a YAML file, or one of {}", name, absl::StrJoin(names, ", ")));
}

// What of the options differs from scenario to scenario of one command.
struct Drive {
  std::string file, text, name;
  std::string out;  // empty: loadtest/results/NAME-TIME
  std::string baseline, save_baseline;
};

struct Finished {
  int exit_code = kExitInvalid;
  std::string folder;
  Summary summary;
};

// Judges against --baseline; saves --save-baseline.
absl::Status Regression(const Drive& drive, const Scenario& scenario, Summary& summary) {
  if (const std::string& path = drive.save_baseline; !path.empty()) {
    if (!summary.invalid.empty()) {
      return absl::FailedPreconditionError("no baseline was saved, the run is invalid: " +
                                           absl::StrJoin(summary.invalid, "; "));
    }
    SLUICE_RETURN_IF_ERROR(WriteTextFile(path, ToJson(BaselineOf(summary))));
    std::fprintf(stderr, "baseline saved: %s\n", path.c_str());
    return absl::OkStatus();
  }
  if (scenario.kind != Scenario::Kind::kRegression) return absl::OkStatus();
  if (scenario.engines.size() == 2) return absl::OkStatus();  // Summarize has compared the arms
  SLUICE_ASSIGN_OR_RETURN(const Baseline baseline, ReadBaseline(drive.baseline));
  JudgeAgainst(baseline, scenario, summary);
  return absl::OkStatus();
}

absl::StatusOr<Finished> RunOne(const Context& context, const Args& args, const Drive& drive) {
  SessionOptions options{.scenario_text = drive.text,
                         .quick = args.Has("--quick"),
                         .overrides = args.All("--set"),
                         .files = FilesOf(args),
                         .command_line = context.command_line,
                         .terminal = isatty(STDERR_FILENO) == 1};
  // Bad scenarios before anything is created or started.
  SLUICE_ASSIGN_OR_RETURN(Scenario scenario, ParseScenario(drive.file, drive.text, options.quick, options.overrides));
  if (scenario.kind == Scenario::Kind::kRegression && scenario.engines.size() == 1 && drive.save_baseline.empty()) {
    SLUICE_RETURN_IF_ERROR(ReadBaseline(drive.baseline).status());
  }
  std::string time = UtcTime();
  std::erase(time, ':');
  options.out_folder = drive.out.empty() ? fmt::format("loadtest/results/{}-{}", drive.name, time) : drive.out;
  options.files.log_folder = options.out_folder;
  std::error_code error;
  const bool created = fs::create_directories(options.out_folder, error);
  if (error)
    return absl::InvalidArgumentError(fmt::format("cannot create {}: {}", options.out_folder, error.message()));
  std::fprintf(stderr, "%s\n",
               (scenario.description.empty() ? scenario.name : scenario.name + ": " + scenario.description).c_str());
  if (const absl::Status status = RunScenario(options, scenario, context.stop); !status.ok()) {
    if (created) fs::remove(options.out_folder, error);  // empty, unless an engine left a log
    return status;
  }

  Run run;
  SLUICE_ASSIGN_OR_RETURN(Summary summary, SummarizeFile(options.out_folder + "/run.jsonl", &run, &scenario));
  const absl::Status judged = Regression(drive, scenario, summary);
  SLUICE_RETURN_IF_ERROR(WriteReports(options.out_folder, run, summary));
  std::fputs(TextReport(summary).c_str(), stdout);
  std::printf("\nreports: %s/report.html (also .md, .json, .txt; raw: run.jsonl)\n\n", options.out_folder.c_str());
  std::fflush(stdout);
  SLUICE_RETURN_IF_ERROR(judged);
  return Finished{summary.exit_code(), options.out_folder, std::move(summary)};
}

absl::StatusOr<Drive> FromFile(const Args& args, const std::string& name) {
  Drive drive{
      .out = args.Get("--out"), .baseline = args.Get("--baseline"), .save_baseline = args.Get("--save-baseline")};
  SLUICE_ASSIGN_OR_RETURN(drive.file, FindScenario(name));
  SLUICE_ASSIGN_OR_RETURN(drive.text, ReadTextFile(drive.file));
  drive.name = fs::path(drive.file).stem().string();
  return drive;
}

int ExitCode(const absl::StatusOr<Finished>& finished) {
  return finished.ok() ? finished->exit_code : Fail(finished.status());
}

// One scenario of the suite. Regression without a baseline measures one first: the same build against itself, which
// says how much the machine varies.
int RunOfSuite(const Context& context, const Args& args, const std::string& name) {
  auto drive = FromFile(args, name);
  if (!drive.ok()) return Fail(drive.status());
  if (!drive->out.empty()) drive->out += "/" + name;
  if (name == "regression" && drive->baseline.empty()) {
    drive->baseline = (fs::temp_directory_path() / fmt::format("sluice-bench-baseline-{}.json", getpid())).string();
    drive->save_baseline = drive->baseline;
    if (const int code = ExitCode(RunOne(context, args, *drive)); code != kExitReached) return code;
  }
  drive->save_baseline.clear();
  return ExitCode(RunOne(context, args, *drive));
}

const std::vector<Option>& EngineOptions() {
  static const std::vector<Option> options = {
      {"--quick", "", "the scenario's short variant"},
      {"--set", "KEY=VALUE",
       "change a key of the scenario, such as load.rate=5 or engines.ttft.url=grpc://...; repeatable"},
      {"--out", "FOLDER", "where the results go (loadtest/results/NAME-TIME)"},
      {"--model-file", "FILE", "GGUF file (or synthetic:...) of engines that the tool starts ($SLUICE_BENCH_MODEL)"},
      {"--sluice-server", "FILE", "the sluice-server to start (the one beside this program)"},
      {"--llama-server", "FILE", "the llama-server to start ($SLUICE_BENCH_LLAMA_SERVER; scripts/peers builds it)"},
      {"--baseline", "FILE", "regression: what to compare with"},
      {"--save-baseline", "FILE", "keep this run as a baseline"}};
  return options;
}

// The options of `load` as a scenario.
absl::StatusOr<std::string> LoadYaml(const Args& args) {
  if (args.operands().size() != 1)
    return absl::InvalidArgumentError("one URL is needed, such as grpc://127.0.0.1:8001");
  const auto number = [&](const char* name, double fallback) -> absl::StatusOr<double> {
    SLUICE_ASSIGN_OR_RETURN(const std::optional<double> value, args.Number(name));
    return value.value_or(fallback);
  };
  SLUICE_ASSIGN_OR_RETURN(const double rate, number("--rate", 0));
  SLUICE_ASSIGN_OR_RETURN(const double concurrency, number("--concurrency", 1));
  SLUICE_ASSIGN_OR_RETURN(const double duration, number("--duration", 10));
  SLUICE_ASSIGN_OR_RETURN(const double warmup, number("--warmup", 2));
  SLUICE_ASSIGN_OR_RETURN(const double requests, number("--requests", 0));
  SLUICE_ASSIGN_OR_RETURN(const double prompt, number("--prompt-tokens", 128));
  SLUICE_ASSIGN_OR_RETURN(const double output, number("--output-tokens", 32));
  SLUICE_ASSIGN_OR_RETURN(const double blocks, number("--blocks", 1));
  SLUICE_ASSIGN_OR_RETURN(const double seed, number("--seed", 42));
  using Json = nlohmann::json;
  Json engine{{"name", args.Get("--name", "target")}, {"url", args.operands()[0]}};
  if (std::getenv("SLUICE_BENCH_TOKEN") != nullptr) engine["token"] = "$SLUICE_BENCH_TOKEN";
  for (const auto& [option, key] : {std::pair{"--model", "model"}, {"--ca", "ca_file"}}) {
    if (args.Has(option)) engine[key] = args.Get(option);
  }
  std::string load = rate > 0 ? fmt::format("mode: {}, rate: {}", args.Get("--arrivals", "poisson"), rate)
                              : fmt::format("mode: closed, concurrency: {:.0f}", concurrency);
  return fmt::format(
      "name: load\nseed: {:.0f}\nengines: [{}]\n"
      "workload: {{form: {}, prompt_tokens: {}, output_tokens: {}{}}}\n"
      "load: {{{}, duration_s: {}, warmup_s: {}, requests: {:.0f}, blocks: {:.0f}}}\n",
      seed, engine.dump(), args.Get("--form", "text"), prompt, output,
      args.Has("--prompts") ? ", prompts_file: " + Json(args.Get("--prompts")).dump() : "", load, duration, warmup,
      requests, blocks);
}

}  // namespace

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "sluice-bench: %s\n", std::string(status.message()).c_str());
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ? kExitUnreachable : kExitInvalid;
}

const Program& BenchProgram() {
  static const Program program = {"sluice-bench", {{"--help", "", "this text"}}};
  return program;
}

const Command& RunSpec() {
  static const Command spec = {.name = "run",
                               .operands = "SCENARIO",
                               .summary = "run one scenario: a YAML file, or the name of a shipped one",
                               .options = EngineOptions(),
                               .examples =
                                   "  sluice-bench run ttft --quick --model-file model.gguf\n"
                                   "  sluice-bench run throughput --set engines.sluice.url=grpc://host:8001 "
                                   "--set engines.sluice.start=\"\"\n"};
  return spec;
}

int RunCommand(const Context& context, const Args& args) {
  if (args.operands().size() != 1) return Fail(absl::InvalidArgumentError("one SCENARIO is needed"));
  const auto drive = FromFile(args, args.operands()[0]);
  return drive.ok() ? ExitCode(RunOne(context, args, *drive)) : Fail(drive.status());
}

const Command& SuiteSpec() {
  static const Command spec = {
      .name = "suite",
      .operands = "",
      .summary = "all scenarios, one after another: ttft throughput stress regression soak fault",
      .options = EngineOptions(),
      .examples = "  scripts/bench suite --quick\n"};
  return spec;
}

int SuiteCommand(const Context& context, const Args& args) {
  int worst = kExitReached;
  std::string table;
  for (const char* name : kSuite) {
    if (context.stop) break;
    const int code = RunOfSuite(context, args, name);
    worst = std::max(worst, code);
    table += fmt::format("  {:<12} {}\n", name,
                         code == kExitReached   ? "reached"
                         : code == kExitMissed  ? "missed"
                         : code == kExitInvalid ? "invalid"
                                                : "unreachable");
  }
  std::printf("suite:\n%s", table.c_str());
  return context.stop ? kExitInvalid : worst;
}

const Command& EnginesSpec() {
  static const Command spec = {.name = "engines",
                               .operands = "FILE",
                               .summary = "compare engines question by question (benchmark, models, questions)",
                               .options = EngineOptions(),
                               .examples = "  scripts/bench engines fifty\n"};
  return spec;
}

int EnginesCommand(const Context& context, const Args& args) {
  if (args.operands().size() != 1) return Fail(absl::InvalidArgumentError("one FILE is needed"));
  auto drive = FromFile(args, args.operands()[0]);
  if (!drive.ok()) return Fail(drive.status());
  const auto models = ReadComparison(drive->file, drive->text);
  if (!models.ok()) return Fail(models.status());
  int worst = kExitReached;
  for (const ComparisonModel& model : *models) {
    if (context.stop) return kExitInvalid;
    drive->text = model.scenario_yaml;
    drive->name = model.name;
    drive->out = args.Has("--out") ? args.Get("--out") + "/" + model.name : "";
    const auto finished = RunOne(context, args, *drive);
    if (!finished.ok()) return Fail(finished.status());
    const std::string json = finished->folder + "/comparison.json";
    if (const auto status = WriteTextFile(json, ComparisonJson(model, finished->summary)); !status.ok())
      return Fail(status);
    worst = std::max(worst, finished->exit_code);
  }
  return worst;
}

const Command& LoadSpecOf() {
  static const Command spec = {
      .name = "load",
      .operands = "URL",
      .summary =
          "drive a running server: grpc:// (Sluice), kserve:// (Triton), http:// (OpenAI); TLS: grpcs, kserves, https",
      .options = {{"--rate", "R", "open loop: requests per second, timed from the schedule"},
                  {"--arrivals", "KIND", "poisson (default) or constant"},
                  {"--concurrency", "N", "closed loop: streams, one request after another (1)"},
                  {"--duration", "SECONDS", "of the measured part (10)"},
                  {"--requests", "N", "so many instead of a duration"},
                  {"--warmup", "SECONDS", "with the same load before it, not counted (2)"},
                  {"--blocks", "N", "repeat, for intervals between runs (1)"},
                  {"--prompt-tokens", "N", "(128)"},
                  {"--output-tokens", "N", "(32)"},
                  {"--form", "KIND", "text (default), chat or tokens"},
                  {"--prompts", "FILE", "one prompt a line, or JSONL with prompt and max_tokens"},
                  {"--model", "NAME", "as the server knows it"},
                  {"--ca", "FILE", "trust servers signed by this PEM file (a bearer token: $SLUICE_BENCH_TOKEN)"},
                  {"--name", "NAME", "of this target in reports"},
                  {"--seed", "N", "(42)"},
                  {"--out", "FOLDER", "where the results go (loadtest/results/load-TIME)"},
                  {"--set", "KEY=VALUE", "any other key of a scenario; repeatable"}},
      .examples =
          "  sluice-bench load grpc://127.0.0.1:8001 --rate 2 --duration 20\n"
          "  sluice-bench load http://127.0.0.1:8080 --concurrency 8 --requests 100\n"};
  return spec;
}

int LoadCommand(const Context& context, const Args& args) {
  const auto yaml = LoadYaml(args);
  if (!yaml.ok()) return Fail(yaml.status());
  return ExitCode(RunOne(context, args, {.file = "options", .text = *yaml, .name = "load", .out = args.Get("--out")}));
}

}  // namespace sluice::loadtest
