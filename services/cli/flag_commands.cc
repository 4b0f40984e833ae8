// sluicectl flags: list, explain, set, watch, kill, validate.
#include <cstdio>

#include "base/status.h"
#include "config/config_loader.h"
#include "flags/flag_set.h"
#include "fmt/format.h"
#include "services/cli/client.h"
#include "sluice/v1/flags.grpc.pb.h"

namespace sluice::cli {
namespace {

namespace pb = ::sluice::v1;

int Usage(const absl::Status& status) {
  std::fprintf(stderr, "sluicectl flags: %s; see sluicectl flags --help\n", std::string(status.message()).c_str());
  return kUsage;
}

std::string Percent(double percent) { return fmt::format("{:g} %", percent); }

void PrintFlags(const pb::ListFlagsResponse& list) {
  std::printf("epoch %llu\n", static_cast<unsigned long long>(list.epoch()));
  if (list.kill_switch()) std::puts("EMERGENCY: kill_switch is on, every flag is out");
  if (list.rollback_to_baseline()) std::puts("EMERGENCY: rollback_to_baseline is on, ttft_pipeline is out");
  std::printf("%-24s %-9s %-10s %-10s %s\n", "FLAG", "ENABLED", "ROLLOUT", "EFFECTIVE", "DECIDED BY");
  for (const pb::FlagInfo& f : list.flags()) {
    const std::string by = f.enabled_layer() == f.rollout_layer()
                               ? f.enabled_layer()
                               : fmt::format("{} (enabled), {} (rollout)", f.enabled_layer(), f.rollout_layer());
    std::fputs(fmt::format("{:<24} {:<9} {:<10} {:<10} {}{}{}{}{}\n", f.key(), f.enabled() ? "yes" : "no",
                           Percent(f.rollout_percentage()), Percent(f.effective_percentage()), by,
                           f.parent().empty() ? "" : ", below " + f.parent(), f.dry_run() ? ", dry_run" : "",
                           f.rules() == 0 ? "" : fmt::format(", {} rules", f.rules()),
                           f.variants_size() == 0 ? "" : fmt::format(", {} variants", f.variants_size()))
                   .c_str(),
               stdout);
  }
  for (const std::string& warning : list.warnings()) std::printf("warning: %s\n", warning.c_str());
  for (const std::string& layer : list.stale()) {
    std::printf("stale: the source of layer %s is out of reach; its last good content holds\n", layer.c_str());
  }
}

void PrintChange(const pb::FlagChange& change) {
  const auto shown = [](const std::string& text) { return text.empty() ? "(nothing)" : text.c_str(); };
  std::printf("  %s %s: %s -> %s\n", change.flag().c_str(), change.field().c_str(), shown(change.before()),
              shown(change.after()));
}

int List(const Client& client, pb::FlagService::Stub& stub) {
  grpc::ClientContext context;
  client.Prepare(context);
  pb::ListFlagsResponse response;
  const grpc::Status status = stub.List(&context, {}, &response);
  if (!status.ok()) return client.Fail(status);
  client.json() ? (void)std::puts(ToJson(response).c_str()) : PrintFlags(response);
  return kOk;
}

int Explain(const Client& client, pb::FlagService::Stub& stub, const Args& args) {
  grpc::ClientContext context;
  client.Prepare(context);
  pb::ExplainFlagRequest request;
  request.set_flag(args.operands()[1]);
  pb::FlagContext& of = *request.mutable_context();
  of.set_targeting_key(args.Get("--for"));
  of.set_tenant(args.Get("--tenant"));
  of.set_user(args.Get("--user"));
  of.set_model(args.Get("--model"));
  of.set_priority_class(args.Get("--class"));
  for (const std::string& header : args.All("--header")) {
    const size_t colon = header.find(':');
    if (colon == std::string::npos) return Usage(absl::InvalidArgumentError("--header wants NAME:VALUE"));
    const size_t begin = header.find_first_not_of(' ', colon + 1);
    (*of.mutable_headers())[header.substr(0, colon)] = begin == std::string::npos ? "" : header.substr(begin);
  }
  if (of.targeting_key().empty()) of.set_targeting_key(of.user());
  pb::ExplainFlagResponse response;
  const grpc::Status status = stub.Explain(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  std::puts(client.json() ? ToJson(response).c_str() : response.text().c_str());
  return kOk;
}

int Set(const Client& client, pb::FlagService::Stub& stub, const Args& args) {
  pb::SetFlagRequest request;
  request.set_flag(args.operands()[1]);
  request.set_reason(args.Get("--reason"));
  const auto percent = args.Number("--percent"), epoch = args.Number("--expected-epoch");
  if (!percent.ok()) return Usage(percent.status());
  if (!epoch.ok()) return Usage(epoch.status());
  if (percent->has_value()) request.set_rollout_percentage(**percent);
  request.set_expected_epoch(static_cast<uint64_t>(epoch->value_or(0)));
  if (args.Has("--on") && args.Has("--off")) return Usage(absl::InvalidArgumentError("--on or --off, not both"));
  if (args.Has("--on") || args.Has("--off")) request.set_enabled(args.Has("--on"));
  const bool something = request.has_enabled() || request.has_rollout_percentage();
  if (something == args.Has("--clear")) {
    return Usage(absl::InvalidArgumentError("say what: --on, --off, --percent N, or --clear"));
  }
  grpc::ClientContext context;
  client.Prepare(context);
  pb::SetFlagResponse response;
  const grpc::Status status = stub.Set(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  if (client.json()) {
    std::puts(ToJson(response).c_str());
    return kOk;
  }
  std::printf("epoch %llu\n", static_cast<unsigned long long>(response.epoch()));
  for (const pb::FlagChange& change : response.changes()) PrintChange(change);
  if (response.changes().empty()) std::puts("  nothing changed");
  if (!response.kept()) std::puts("warning: the server has no state folder, so a restart forgets this");
  for (const std::string& inert : response.inert()) std::printf("warning: %s\n", inert.c_str());
  return kOk;
}

int Watch(const Client& client, pb::FlagService::Stub& stub, const Args& args) {
  const auto events = args.Number("--events");
  if (!events.ok()) return Usage(events.status());
  grpc::ClientContext context;
  client.Prepare(context);
  context.set_deadline(std::chrono::system_clock::time_point::max());
  const auto reader = stub.Watch(&context, {});
  pb::FlagEvent event;
  for (double left = events->value_or(0); reader->Read(&event);) {
    if (client.json()) {
      std::puts(ToJson(event).c_str());
    } else if (event.changes().empty()) {
      PrintFlags(event.state());
    } else {
      std::printf("epoch %llu\n", static_cast<unsigned long long>(event.epoch()));
      for (const pb::FlagChange& change : event.changes()) PrintChange(change);
    }
    std::fflush(stdout);
    if (events->has_value() && --left <= 0) {
      context.TryCancel();
      (void)reader->Finish();
      return kOk;
    }
  }
  return client.Fail(reader->Finish());
}

int Kill(const Client& client, pb::FlagService::Stub& stub, const Args& args) {
  pb::EmergencyStopRequest request;
  request.set_switch_(args.Has("--baseline") ? pb::EmergencyStopRequest::ROLLBACK_TO_BASELINE
                                             : pb::EmergencyStopRequest::KILL_SWITCH);
  request.set_on(!args.Has("--end"));
  request.set_reason(args.Get("--reason"));
  grpc::ClientContext context;
  client.Prepare(context);
  pb::EmergencyStopResponse response;
  const grpc::Status status = stub.EmergencyStop(&context, request, &response);
  if (!status.ok()) return client.Fail(status);
  if (client.json()) {
    std::puts(ToJson(response).c_str());
    return kOk;
  }
  const char* what = args.Has("--baseline") ? "rollback_to_baseline" : "kill_switch";
  std::printf("%s is %s, epoch %llu\n", what, request.on() || response.still_on_size() > 0 ? "on" : "off",
              static_cast<unsigned long long>(response.epoch()));
  if (!response.kept()) std::puts("warning: the state store did not keep this, so a restart forgets it");
  for (const std::string& layer : response.still_on()) {
    std::printf("warning: it stays on, because the layer %s holds it\n", layer.c_str());
  }
  return kOk;
}

// Without a server: what sluice-server would say to the file.
int Validate(const std::string& path) {
  const auto layer = config::LoadFlagFile(path);
  if (!layer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(layer.status().message()).c_str());
    return kRefused;
  }
  const auto set = flags::FlagSet::Create(
      flags::MergeLayers({{flags::Layer::kDefault, config::DefaultFlags()}, {flags::Layer::kFile, *layer}}), 1);
  if (!set.ok()) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), std::string(set.status().message()).c_str());
    return kRefused;
  }
  const auto state = (*set)->Describe();
  for (const std::string& line : state.lines) std::puts(line.c_str());
  for (const std::string& warning : state.warnings) std::printf("warning: %s\n", warning.c_str());
  std::puts("valid");
  return kOk;
}

}  // namespace

const Command& FlagsSpec() {
  static const Command spec = {.name = "flags",
                               .operands = "[list | explain FLAG | set FLAG | watch | kill | validate FILE]",
                               .summary = "who gets which behaviour, why, and how to change it",
                               .options = {{"--for", "KEY", "explain: the targeting key (default: --user)"},
                                           {"--user", "NAME", "explain: of the request"},
                                           {"--tenant", "NAME", "explain: of the request"},
                                           {"--model", "NAME", "explain: of the request"},
                                           {"--class", "NAME", "explain: system, interactive, standard or batch"},
                                           {"--header", "NAME:VALUE", "explain: of the request; repeatable"},
                                           {"--on", "", "set: enabled"},
                                           {"--off", "", "set: not enabled"},
                                           {"--percent", "N", "set: the rollout percentage, 0 to 100 in steps of 0.01"},
                                           {"--clear", "", "set: take the override back"},
                                           {"--expected-epoch", "N", "set: refuse when somebody else was faster"},
                                           {"--reason", "TEXT", "set, kill: why (required; kept in the log)"},
                                           {"--baseline", "", "kill: only ttft_pipeline, by rollback_to_baseline"},
                                           {"--end", "", "kill: the emergency is over"},
                                           {"--events", "N", "watch: end after so many events"}},
                               .examples =
                                   "  sluicectl flags\n"
                                   "  sluicectl flags explain ttft_pipeline --user alice\n"
                                   "  sluicectl flags set ttft_pipeline --percent 10 --reason \"first canary\"\n"
                                   "  sluicectl flags kill --reason \"TTFT doubled\"      all flags out, at once\n"
                                   "  sluicectl flags validate config/feature-flags.yaml\n"};
  return spec;
}

int FlagsCommand(const Args& args) {
  const std::vector<std::string>& words = args.operands();
  const std::string verb = words.empty() ? "list" : words[0];
  const bool named = verb == "explain" || verb == "set" || verb == "validate";
  const bool alone = verb == "list" || verb == "watch" || verb == "kill";
  if ((!named && !alone) || words.size() > (named ? 2U : 1U) || (named && words.size() != 2)) {
    return Usage(absl::InvalidArgumentError("usage: " + FlagsSpec().operands));
  }
  if (verb == "validate") return Validate(words[1]);
  if ((verb == "set" || verb == "kill") && args.Get("--reason").empty()) {
    return Usage(absl::InvalidArgumentError("say why with --reason TEXT: it is kept in the log"));
  }
  const auto client = Client::Connect(args);
  if (!client.ok()) return Usage(client.status());
  const auto stub = pb::FlagService::NewStub(client->channel());
  if (verb == "list") return List(*client, *stub);
  if (verb == "explain") return Explain(*client, *stub, args);
  if (verb == "set") return Set(*client, *stub, args);
  return verb == "watch" ? Watch(*client, *stub, args) : Kill(*client, *stub, args);
}

}  // namespace sluice::cli
