// sluicectl rollout: status, start, promote, hold, rollback, watch, history, evidence, validate; plan and simulate are
// in files of their own.
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <thread>

#include "base/files.h"
#include "config/rollout_file.h"
#include "fmt/chrono.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "services/cli/client.h"
#include "services/cli/evidence_page.h"
#include "services/cli/rollout_plan.h"
#include "services/cli/rollout_simulate.h"
#include "sluice/v1/rollout.grpc.pb.h"

namespace sluice::cli {
namespace {

namespace pb = ::sluice::v1;

int Usage(const std::string& text) {
  std::fprintf(stderr, "sluicectl rollout: %s; see sluicectl rollout --help\n", text.c_str());
  return kUsage;
}

void Print(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

std::string Clock(int64_t ms) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(ms / 1000)));
}

std::string Describe(const pb::Rollout& r) {
  return fmt::format("{}: {}, {:g} %, stage {} of {}, attempt {}, epoch {}", r.flag(), r.phase(), r.percent(),
                     r.stage() + 1, r.stages_size(), r.attempt(), r.epoch());
}

void PrintRollout(const pb::Rollout& r) {
  if (r.attempt() == 0) return Print(r.flag() + ": never started");
  Print(Describe(r));
  Print(fmt::format("  since {}: {}", Clock(r.since_ms()), r.cause()));
  std::vector<std::string> stages;
  for (int i = 0; i < r.stages_size(); ++i) {
    const bool here = static_cast<uint32_t>(i) == r.stage() && r.percent() > 0;
    stages.push_back(fmt::format("{}{:g} %{}", here ? "[" : "", r.stages(i).percent(), here ? "]" : ""));
  }
  Print(fmt::format("  stages  {}", fmt::join(stages, " > ")));
  Print(fmt::format("  verdict {}: {}", r.verdict(), r.verdict_cause()));
  if (!r.hold().empty()) Print("  held    " + r.hold());
  if (r.canary_events() + r.baseline_events() > 0) {
    Print(fmt::format("  events  {} of the canary, {} of the baseline in this stage", r.canary_events(),
                      r.baseline_events()));
  }
  for (const pb::RolloutCheck& c : r.checks()) {
    Print(fmt::format("  {:<14} {:<13} canary {:<9.4g} baseline {:<9.4g} ratio {:<7.3g} e-value {:.3g} of {:.0f}",
                      c.name(), c.verdict(), c.canary(), c.baseline(), c.ratio(), c.e_value(), c.e_limit()));
  }
}

// False: the call failed, and `exit_code` says how.
bool List(const Client& client, pb::RolloutService::Stub& stub, pb::ListRolloutsResponse* out, int* exit_code) {
  grpc::ClientContext context;
  client.Prepare(context);
  const grpc::Status status = stub.ListRollouts(&context, {}, out);
  if (!status.ok()) *exit_code = client.Fail(status);
  return status.ok();
}

int Status(const Client& client, pb::RolloutService::Stub& stub, const std::string& flag, bool history) {
  pb::ListRolloutsResponse list;
  int exit_code = kOk;
  if (!List(client, stub, &list, &exit_code)) return exit_code;
  if (client.json()) {
    Print(ToJson(list));
    return kOk;
  }
  if (!history) {
    Print(fmt::format("replica {}; leader: {}; {} report", list.replica(),
                      list.leader().empty() ? "nobody" : list.leader(), list.replicas_size()));
    if (!list.store_error().empty()) {
      Print(
          fmt::format("the state store is out of reach for {:.0f} s: {}", list.stale_ms() / 1000, list.store_error()));
    }
  }
  bool found = flag.empty();
  for (const pb::Rollout& r : list.rollouts()) {
    if (!flag.empty() && r.flag() != flag) continue;
    found = true;
    if (!history) {
      PrintRollout(r);
      continue;
    }
    for (const pb::RolloutTransition& t : r.history()) {
      Print(fmt::format("{}  epoch {:<4} {:>12} -> {:<12} {:>6g} %  {}", Clock(t.when_ms()), t.epoch(), t.from(),
                        t.to(), t.percent(), t.cause()));
    }
  }
  if (list.rollouts().empty()) Print("no rollout is defined (config/rollouts.yaml)");
  if (found) return kOk;
  std::fprintf(stderr, "sluicectl rollout: no rollout of '%s' is defined\n", flag.c_str());
  return kRefused;
}

// One line for each change, until stopped.
int Watch(const Client& client, pb::RolloutService::Stub& stub, const std::string& flag) {
  std::map<std::string, std::string> shown;
  while (true) {
    pb::ListRolloutsResponse list;
    int exit_code = kOk;
    if (!List(client, stub, &list, &exit_code)) return exit_code;
    for (const pb::Rollout& r : list.rollouts()) {
      if (!flag.empty() && r.flag() != flag) continue;
      const std::string line = client.json() ? ToJson(r) : Describe(r);
      if (shown[r.flag()] == line) continue;
      shown[r.flag()] = line;
      Print(client.json() ? line : fmt::format("{}  ({})", line, r.attempt() == 0 ? "never started" : r.cause()));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

int Order(const Client& client, pb::RolloutService::Stub& stub, pb::OrderRolloutRequest::Order order,
          const std::string& flag, const Args& args) {
  pb::OrderRolloutRequest request;
  request.set_flag(flag);
  request.set_order(order);
  request.set_reason(args.Get("--reason"));
  request.set_force(args.Has("--force"));
  const auto epoch = args.Number("--epoch");
  if (!epoch.ok()) return Usage(std::string(epoch.status().message()));
  request.set_expected_epoch(static_cast<uint64_t>(epoch->value_or(0)));
  if (request.reason().empty()) return Usage("say why with --reason TEXT: it is kept in history and evidence");
  grpc::ClientContext context;
  client.Prepare(context);
  pb::OrderRolloutResponse response;
  const grpc::Status status = stub.OrderRollout(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  const pb::Rollout& r = response.rollout();
  Print(client.json() ? ToJson(response)
                      : fmt::format("{}: {}, {:g} %, attempt {}, epoch {}", r.flag(), r.phase(), r.percent(),
                                    r.attempt(), r.epoch()));
  return kOk;
}

int Evidence(const Client& client, pb::RolloutService::Stub& stub, const std::string& flag, const Args& args) {
  pb::ListRolloutEvidenceRequest request;
  request.set_flag(flag);
  const auto last = args.Number("--last");
  if (!last.ok()) return Usage(std::string(last.status().message()));
  request.set_limit(static_cast<int>(last->value_or(0)));
  grpc::ClientContext context;
  client.Prepare(context);
  pb::ListRolloutEvidenceResponse response;
  const grpc::Status status = stub.ListRolloutEvidence(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  std::vector<nlohmann::json> evidence;
  for (const std::string& text : response.evidence()) {
    if (client.json()) Print(text);
    auto document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (document.is_object()) evidence.push_back(std::move(document));
  }
  if (client.json()) return kOk;
  if (const std::string path = args.Get("--html"); !path.empty()) {
    if (const absl::Status written = WriteTextFile(path, EvidencePage(flag, evidence)); !written.ok()) {
      std::fprintf(stderr, "sluicectl rollout: %s\n", std::string(written.message()).c_str());
      return kRefused;
    }
    Print(fmt::format("{} moves in {}", evidence.size(), path));
    return kOk;
  }
  for (const nlohmann::json& one : evidence) std::fputs(EvidenceText(one).c_str(), stdout);
  if (evidence.empty()) Print("nothing was decided about '" + flag + "' yet");
  return kOk;
}

// Without a server: what sluice-server would say to the file.
int Validate(const std::string& path) {
  const auto file = config::LoadRolloutFile(path);
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", std::string(file.status().message()).c_str());
    return kRefused;
  }
  for (const rollout::RolloutSpec& spec : file->rollouts) {
    std::vector<std::string> stages;
    for (size_t i = 0; i < spec.stages.size(); ++i) stages.push_back(fmt::format("{:g} %", spec.Share(i) / 100.0));
    Print(fmt::format("{}: {}", spec.flag, fmt::join(stages, " > ")));
  }
  Print("valid");
  return kOk;
}

}  // namespace

const Command& RolloutSpec() {
  static const Command spec = {
      .name = "rollout",
      .operands =
          "[status [FLAG] | start FLAG | promote FLAG | hold FLAG | rollback FLAG | watch [FLAG] | history FLAG "
          "| evidence FLAG | validate FILE | plan [FLAG] | simulate]",
      .summary = "percentages that rise on evidence and fall by themselves",
      .options = {{"--reason", "TEXT", "start, promote, hold, rollback: why (required; kept in history and evidence)"},
                  {"--force", "", "start: in spite of the cool-down after a rollback"},
                  {"--epoch", "N", "only if the rollout is still at this epoch"},
                  {"--last", "N", "evidence: of so many moves (20)"},
                  {"--html", "FILE", "evidence: write a page with plots"},
                  {"--file", "FILE", "plan: stages and limits of this rollouts.yaml"},
                  {"--rate", "N", "simulate, plan: requests a second (50)"},
                  {"--share", "PERCENT", "simulate: of the canary (10); plan: this share alone, not the stages"},
                  {"--base-error", "PERCENT", "simulate, plan: of the baseline's requests (0.5)"},
                  {"--errors", "RATIO", "simulate: the canary's error rate against it (1: it is not worse)"},
                  {"--latency", "RATIO", "simulate: the canary's latencies against the baseline's (1)"},
                  {"--sigma", "S", "simulate, plan: of the log-normal latencies (0.6)"},
                  {"--alpha", "A", "simulate, plan: chance of a false alarm that is allowed (0.01)"},
                  {"--minutes", "N", "simulate: how long each trial is watched (60)"},
                  {"--trials", "N", "simulate: (1000)"},
                  {"--seed", "N", "simulate: (1)"}},
      .examples =
          "  sluicectl rollout\n"
          "  sluicectl rollout start ttft_pipeline --reason \"new prefix index\"\n"
          "  sluicectl rollout watch\n"
          "  sluicectl rollout rollback ttft_pipeline --reason \"users complain\"\n"
          "  sluicectl rollout evidence ttft_pipeline --html evidence.html\n"
          "  sluicectl rollout validate config/rollouts.yaml\n"
          "  sluicectl rollout plan ttft_pipeline\n"
          "  sluicectl rollout plan --rate 5 --base-error 1\n"
          "  sluicectl rollout simulate --rate 20 --share 10 --errors 5\n"};
  return spec;
}

int RolloutCommand(const Args& args) {
  const std::vector<std::string>& words = args.operands();
  const std::string verb = words.empty() ? "status" : words[0];
  const std::string flag = words.size() > 1 ? words[1] : "";
  static const std::map<std::string, pb::OrderRolloutRequest::Order> kOrders = {
      {"start", pb::OrderRolloutRequest::START},
      {"promote", pb::OrderRolloutRequest::PROMOTE},
      {"hold", pb::OrderRolloutRequest::HOLD},
      {"rollback", pb::OrderRolloutRequest::ROLLBACK}};
  const auto order = kOrders.find(verb);
  const bool named = order != kOrders.end() || verb == "history" || verb == "evidence" || verb == "validate";
  if ((!named && verb != "status" && verb != "watch" && verb != "plan" && verb != "simulate") || words.size() > 2 ||
      (named && flag.empty())) {
    return Usage("usage: " + RolloutSpec().operands);
  }
  if (verb == "validate") return Validate(flag);
  if (verb == "plan") return RolloutPlan(args);
  if (verb == "simulate") return RolloutSimulate(args);
  const auto client = Client::Connect(args);
  if (!client.ok()) return Usage(std::string(client.status().message()));
  const auto stub = pb::RolloutService::NewStub(client->channel());
  if (order != kOrders.end()) return Order(*client, *stub, order->second, flag, args);
  if (verb == "watch") return Watch(*client, *stub, flag);
  if (verb == "evidence") return Evidence(*client, *stub, flag, args);
  return Status(*client, *stub, flag, verb == "history");
}

}  // namespace sluice::cli
