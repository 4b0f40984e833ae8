// sluicectl qos: status, policies, breakers, decisions, explain, replay, validate.
#include <cstdio>

#include "base/status.h"
#include "config/qos_file.h"
#include "fmt/format.h"
#include "services/cli/client.h"
#include "services/cli/replay_report.h"
#include "services/qos_records.h"
#include "sluice/v1/qos.grpc.pb.h"

namespace sluice::cli {
namespace {

namespace pb = ::sluice::v1;

int Usage(const absl::Status& status) {
  std::fprintf(stderr, "sluicectl qos: %s; see sluicectl qos --help\n", std::string(status.message()).c_str());
  return kUsage;
}

int Usage(const std::string& text) { return Usage(absl::InvalidArgumentError(text)); }

void Print(const std::string& line) { std::puts(line.c_str()); }

std::string Value(const pb::ObjectiveStatus& o) {
  return o.state() == "unknown" ? fmt::format("unknown ({} samples)", o.samples())
                                : fmt::format("{:.4g} ({}, {} samples)", o.value(), o.state(), o.samples());
}

void PrintPolicies(const pb::GetQosStatusResponse& status) {
  Print(fmt::format("policies, epoch {}", status.epoch()));
  for (const pb::PolicyStatus& policy : status.policies()) {
    const std::string share = policy.mode() == "enforce" && policy.enforced_percent() < 100
                                  ? fmt::format(" {:g} %", policy.enforced_percent())
                                  : "";
    Print(fmt::format("{} ({}{}): {}", policy.id(), policy.mode(), share,
                      policy.step() == 0 ? "nothing is done"
                                         : fmt::format("step {} of {} since {:.0f} s", policy.step(),
                                                       policy.ladder_size(), policy.step_age_ms() / 1000)));
    if (!policy.description().empty()) Print("  " + policy.description());
    for (const pb::ObjectiveStatus& o : policy.objectives()) {
      Print(fmt::format("  objective  {} {:.4g} [{}]: {}", o.metric(), o.threshold(), o.severity(), Value(o)));
    }
    for (int i = 0; i < policy.ladder_size(); ++i) {
      Print(fmt::format("  step {}     {}{}", i + 1, policy.ladder(i), i < policy.step() ? "   <- holds" : ""));
    }
    if (!policy.held_by().empty()) Print("  violated, but held by its " + policy.held_by());
  }
  if (!status.file_error().empty()) Print("the newest policy file was refused:\n" + status.file_error());
}

void PrintBreakers(const google::protobuf::RepeatedPtrField<pb::BreakerStatus>& breakers) {
  if (breakers.empty()) Print("no breakers yet: each is made by the first request");
  for (const pb::BreakerStatus& b : breakers) {
    const auto rate = [](double r) { return r < 0 ? std::string("-") : fmt::format("{:.1f} %", r * 100); };
    Print(fmt::format("{:<30} {:<12} failures {}, slow {}, {} calls", b.model() + "/" + b.pipeline(), b.state(),
                      rate(b.failure_rate()), rate(b.slow_call_rate()), b.buffered_calls()));
  }
}

int Status(const Client& client, pb::QosService::Stub& stub, const std::string& what) {
  grpc::ClientContext context;
  client.Prepare(context);
  pb::GetQosStatusResponse status;
  const grpc::Status done = stub.GetQosStatus(&context, {}, &status);
  if (!done.ok()) return client.Fail(done);
  if (client.json()) {
    Print(ToJson(status));
    return kOk;
  }
  if (what == "breakers") {
    PrintBreakers(status.breakers());
    return kOk;
  }
  if (what == "status") {
    Print(fmt::format("running {} of {} permits (at most {})", status.running(), status.concurrency_limit(),
                      status.max_concurrent()));
    for (const pb::ClassStatus& c : status.classes()) {
      Print(fmt::format("  queued {:<12} {}", c.priority_class(), c.queued()));
    }
    for (const pb::ResourcePressure& p : status.pressures()) {
      Print(fmt::format("  pressure {:<17} {}", p.resource(),
                        p.pressure() < 0 ? std::string("not known") : fmt::format("{:.0f} %", p.pressure() * 100)));
    }
    PrintBreakers(status.breakers());
  }
  PrintPolicies(status);
  return kOk;
}

int SetBreaker(const Client& client, pb::QosService::Stub& stub, const Args& args) {
  const std::string set = args.Get("--set");
  const size_t equals = set.find('=');
  if (equals == std::string::npos) return Usage("--set wants PIPELINE=STATE, like ttft=forced_open");
  if (args.Get("--reason").empty()) return Usage("say why with --reason TEXT: it is kept in the log");
  pb::SetBreakerRequest request;
  request.set_model(args.Get("--model"));
  request.set_pipeline(set.substr(0, equals));
  request.set_state(set.substr(equals + 1));
  request.set_reason(args.Get("--reason"));
  grpc::ClientContext context;
  client.Prepare(context);
  pb::SetBreakerResponse response;
  const grpc::Status status = stub.SetBreaker(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  if (client.json()) {
    Print(ToJson(response));
  } else {
    google::protobuf::RepeatedPtrField<pb::BreakerStatus> one;
    *one.Add() = response.breaker();
    PrintBreakers(one);
  }
  return kOk;
}

int Decisions(const Client& client, pb::QosService::Stub& stub, const Args& args) {
  const auto last = args.Number("--last");
  if (!last.ok()) return Usage(last.status());
  pb::ListDecisionsRequest request;
  request.set_limit(static_cast<int>(last->value_or(20)));
  request.set_tenant(args.Get("--tenant"));
  request.set_model(args.Get("--model"));
  request.set_verdict(args.Get("--verdict"));
  request.set_policy(args.Get("--policy"));
  request.set_request_id(args.Get("--request-id"));
  grpc::ClientContext context;
  client.Prepare(context);
  pb::ListDecisionsResponse response;
  const grpc::Status status = stub.ListDecisions(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  if (client.json()) {
    for (const pb::Decision& d : response.decisions()) Print(ToJson(d));
    return kOk;
  }
  Print(fmt::format("{:<8} {:<34} {:<12} {:<12} {:>7} {:>7}  {:<20} {}", "ID", "REQUEST", "TENANT", "CLASS", "PROMPT",
                    "MAX", "VERDICT", "POLICIES"));
  for (const pb::Decision& d : response.decisions()) {
    std::string policies = d.enforced();
    if (!d.dry_run().empty()) policies += (policies.empty() ? "" : " ") + ("would: " + d.dry_run());
    Print(fmt::format("{:<8} {:<34} {:<12} {:<12} {:>7} {:>7}  {:<20} {}", d.id(), d.request_id(), d.tenant(),
                      d.priority_class(), d.prompt_tokens(), d.granted_max_tokens(), d.verdict(), policies));
  }
  return kOk;
}

int Explain(const Client& client, pb::QosService::Stub& stub, const Args& args) {
  pb::ExplainQosRequest request;
  request.set_tenant(args.Get("--tenant"));
  request.set_user(args.Get("--user"));
  request.set_model(args.Get("--model"));
  request.set_priority_class(args.Get("--class"));
  const auto prompt = args.Number("--prompt-tokens"), max = args.Number("--max-tokens");
  const auto deadline = args.Number("--deadline-ms"), ttft = args.Number("--ttft-ms");
  for (const auto* number : {&prompt, &max, &deadline, &ttft}) {
    if (!number->ok()) return Usage(number->status());
  }
  request.set_prompt_tokens(static_cast<int>(prompt->value_or(128)));
  request.set_max_tokens(static_cast<int>(max->value_or(128)));
  request.set_deadline_ms(deadline->value_or(0));
  request.set_ttft_objective_ms(ttft->value_or(0));
  grpc::ClientContext context;
  client.Prepare(context);
  pb::ExplainQosResponse response;
  const grpc::Status status = stub.ExplainQos(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  Print(client.json() ? ToJson(response) : response.text());
  return kOk;
}

// Without a server: what sluice-server would say to the file.
int Validate(const std::string& path) {
  const auto file = config::LoadQosFile(path, /*epoch=*/1);
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", std::string(file.status().message()).c_str());
    return kRefused;
  }
  for (const qos::Policy& policy : file->policies->policies()) {
    Print(fmt::format("{}: {}, {} objectives, {} steps", policy.id, qos::PolicyModeName(policy.mode),
                      policy.objectives.size(), policy.ladder.size()));
  }
  Print(fmt::format("{} quota rules\nvalid", file->quotas.size()));
  return kOk;
}

// Without a server: the recorded period under each of the files.
int Replay(const std::string& log, const Args& args) {
  const std::vector<std::string> files = args.All("--policies");
  if (files.empty()) return Usage("replay wants --policies FILE, once for each set to compare");
  std::vector<NamedReport> reports;
  for (const std::string& path : files) {
    const auto file = config::LoadQosFile(path, /*epoch=*/1);
    if (!file.ok()) {
      std::fprintf(stderr, "%s\n", std::string(file.status().message()).c_str());
      return kRefused;
    }
    qos::Replay replay({.policies = file->policies, .quotas = file->quotas, .enforce_all = args.Has("--enforce")});
    const auto read = services::ReadQosLog(log, [&replay](const qos::QosRecord& record) { replay.Add(record); });
    if (!read.ok()) {
      std::fprintf(stderr, "sluicectl qos replay: %s\n", std::string(read.status().message()).c_str());
      return kRefused;
    }
    reports.push_back({.name = path, .log = *read, .report = replay.Finish()});
  }
  Print(args.Has("--json") ? ReplayJson(reports) : ReplayText(log, reports, args.Has("--enforce")));
  return kOk;
}

}  // namespace

const Command& QosSpec() {
  static const Command spec = {
      .name = "qos",
      .operands = "[status | policies | breakers | decisions | explain | replay LOG | validate FILE]",
      .summary = "what policies see and do, and what others would have done",
      .options = {{"--set", "PIPELINE=STATE",
                   "breakers: closed, open, half_open, disabled, forced_open or metrics_only"},
                  {"--reason", "TEXT", "breakers --set: why (required; kept in the log)"},
                  {"--last", "N", "decisions: how many (20)"},
                  {"--verdict", "WORD", "decisions: admitted, or the reason of a refusal"},
                  {"--policy", "ID", "decisions: that acted or would have acted"},
                  {"--request-id", "ID", "decisions: of this request"},
                  {"--tenant", "NAME", "decisions, explain: of the request"},
                  {"--model", "NAME", "decisions, explain, breakers: of the request (the default model)"},
                  {"--user", "NAME", "explain: of the request"},
                  {"--class", "NAME", "explain: system, interactive, standard (default) or batch"},
                  {"--prompt-tokens", "N", "explain: of the request (128)"},
                  {"--max-tokens", "N", "explain: of the request (128)"},
                  {"--deadline-ms", "N", "explain: of the request (none)"},
                  {"--ttft-ms", "N", "explain: its x-llm-d-slo-ttft-ms (none)"},
                  {"--policies", "FILE", "replay: decide by this file; repeatable, to compare"},
                  {"--enforce", "", "replay: as if every policy in dry_run were enforced"}},
      .examples =
          "  sluicectl qos\n"
          "  sluicectl qos decisions --verdict QUEUE_FULL --last 50\n"
          "  sluicectl qos explain --tenant acme --class batch --prompt-tokens 2000\n"
          "  sluicectl qos breakers --set ttft=forced_open --reason \"bad build\"\n"
          "  sluicectl qos replay qos-decisions.jsonl --policies now.yaml --policies new.yaml --enforce\n"
          "  sluicectl qos validate config/qos-policies.yaml\n"};
  return spec;
}

int QosCommand(const Args& args) {
  const std::vector<std::string>& words = args.operands();
  const std::string verb = words.empty() ? "status" : words[0];
  const bool named = verb == "replay" || verb == "validate";
  const bool alone =
      verb == "status" || verb == "policies" || verb == "breakers" || verb == "decisions" || verb == "explain";
  if ((!named && !alone) || (named && words.size() != 2) || (alone && words.size() > 1)) {
    return Usage("usage: " + QosSpec().operands);
  }
  if (verb == "validate") return Validate(words[1]);
  if (verb == "replay") return Replay(words[1], args);
  const auto client = Client::Connect(args);
  if (!client.ok()) return Usage(client.status());
  const auto stub = pb::QosService::NewStub(client->channel());
  if (verb == "decisions") return Decisions(*client, *stub, args);
  if (verb == "explain") return Explain(*client, *stub, args);
  if (verb == "breakers" && args.Has("--set")) return SetBreaker(*client, *stub, args);
  return Status(*client, *stub, verb);
}

}  // namespace sluice::cli
