#include <cstdio>

#include "base/status.h"
#include "fmt/format.h"
#include "services/cli/client.h"
#include "sluice/v1/admin.grpc.pb.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::cli {
namespace {

namespace pb = ::sluice::v1;

int Usage(const char* command, const absl::Status& status) {
  std::fprintf(stderr, "sluicectl %s: %s\n", command, std::string(status.message()).c_str());
  return kUsage;
}

void PrintModel(const pb::Model& m) {
  std::fputs(fmt::format("{:<20} {:<10} {:<10} {:>6} {:>8} {:>9} {}{}{}\n", m.name(), m.state(), m.backend(), m.slots(),
                         m.slot_context(), fmt::format("{} MiB", (m.weight_bytes() + m.kv_bytes()) >> 20),
                         m.description(), m.is_default() ? " (default)" : "", m.pinned() ? " (pinned)" : "")
                 .c_str(),
             stdout);
  if (!m.error().empty()) std::printf("  %s\n", m.error().c_str());
}

int ListModels(const Client& client) {
  auto stub = pb::InferenceService::NewStub(client.channel());
  grpc::ClientContext context;
  client.Prepare(context);
  pb::ListModelsResponse response;
  const grpc::Status status = stub->ListModels(&context, {}, &response);
  if (!status.ok()) return client.Fail(status);
  if (client.json()) {
    std::puts(ToJson(response).c_str());
    return kOk;
  }
  std::printf("%-20s %-10s %-10s %6s %8s %9s %s\n", "NAME", "STATE", "BACKEND", "SLOTS", "CONTEXT", "MEMORY",
              "DESCRIPTION");
  for (const pb::Model& m : response.models()) PrintModel(m);
  return kOk;
}

int ChangeModel(const Client& client, const std::vector<std::string>& words) {
  auto stub = pb::AdminService::NewStub(client.channel());
  grpc::ClientContext context;
  client.Prepare(context);
  grpc::Status status;
  if (words[0] == "load") {
    pb::LoadModelRequest request;
    request.set_name(words[1]);
    if (words.size() > 2) request.set_path(words[2]);
    pb::LoadModelResponse response;
    status = stub->LoadModel(&context, request, &response);
    if (status.ok()) std::printf("%s is ready after %.0f ms\n", words[1].c_str(), response.load_ms());
  } else if (words[0] == "unload") {
    pb::UnloadModelRequest request;
    request.set_name(words[1]);
    pb::UnloadModelResponse response;
    status = stub->UnloadModel(&context, request, &response);
    if (status.ok()) std::printf("%s is unloaded\n", words[1].c_str());
  } else {
    pb::PinModelRequest request;
    request.set_name(words[1]);
    request.set_pinned(words[0] == "pin");
    pb::PinModelResponse response;
    status = stub->PinModel(&context, request, &response);
    if (status.ok()) std::printf("%s is %s\n", words[1].c_str(), request.pinned() ? "pinned" : "no longer pinned");
  }
  return status.ok() ? kOk : client.Fail(status);
}

void PrintStatus(const pb::GetStatusResponse& s) {
  std::printf("server   %s, version %s, up %.0f s, %llu MiB resident\n", s.state().c_str(), s.version().c_str(),
              s.uptime_s(), static_cast<unsigned long long>(s.rss_bytes() >> 20));
  std::printf("requests %d running, %d queued\n", s.admission_running(), s.admission_queued());
  for (const auto& e : s.engines()) {
    std::printf(
        "engine   %s: %d of %d slots, %d waiting, %d paused, KV %.1f %%, %.0f decode and %.0f prefill tokens/s%s\n",
        e.model().c_str(), e.running(), e.slots(), e.waiting(), e.paused(),
        e.kv_tokens_total() == 0
            ? 0.0
            : 100.0 * static_cast<double>(e.kv_tokens_used()) / static_cast<double>(e.kv_tokens_total()),
        e.decode_tokens_per_second(), e.prefill_tokens_per_second(), e.healthy() ? "" : ", UNHEALTHY");
  }
  for (const auto& b : s.breakers()) {
    std::printf("breaker  %s/%s: %s, %d calls\n", b.model().c_str(), b.pipeline().c_str(), b.state().c_str(),
                b.buffered_calls());
  }
  for (const auto& f : s.flags()) std::printf("flag     %s\n", f.effective().c_str());
}

}  // namespace

const Command& ModelsSpec() {
  static const Command spec = {.name = "models",
                               .operands = "[load NAME [PATH] | unload NAME | pin NAME | unpin NAME]",
                               .summary = "list models; load, unload and pin them",
                               .options = {},
                               .examples =
                                   "  sluicectl models\n"
                                   "  sluicectl models load big models/big.gguf\n"};
  return spec;
}

int ModelsCommand(const Args& args) {
  const auto client = Client::Connect(args);
  if (!client.ok()) return Usage("models", client.status());
  const std::vector<std::string>& words = args.operands();
  if (words.empty()) return ListModels(*client);
  const bool verb = words[0] == "load" || words[0] == "unload" || words[0] == "pin" || words[0] == "unpin";
  if (!verb || words.size() < 2 || words.size() > (words[0] == "load" ? 3U : 2U)) {
    return Usage("models", absl::InvalidArgumentError("usage: " + ModelsSpec().operands));
  }
  return ChangeModel(*client, words);
}

const Command& StatusSpec() {
  static const Command spec = {.name = "status",
                               .operands = "",
                               .summary = "what the server is doing: engines, breakers, flags",
                               .options = {{"--wait", "SECONDS", "first wait until the server is ready"}},
                               .examples = "  sluicectl status --wait 120\n"};
  return spec;
}

int StatusCommand(const Args& args) {
  const auto client = Client::Connect(args);
  const auto wait = args.Number("--wait");
  if (!client.ok() || !wait.ok()) return Usage("status", client.ok() ? wait.status() : client.status());
  auto stub = pb::AdminService::NewStub(client->channel());
  const auto end =
      std::chrono::system_clock::now() + std::chrono::milliseconds(static_cast<int64_t>(wait->value_or(0) * 1000));
  for (;;) {
    grpc::ClientContext context;
    client->Prepare(context);
    context.set_wait_for_ready(wait->has_value());
    if (wait->has_value()) context.set_deadline(end);
    pb::GetStatusResponse response;
    const grpc::Status status = stub->GetStatus(&context, {}, &response);
    if (!status.ok()) return client->Fail(status);
    const bool ready = response.state() == "ready";
    if (!ready && std::chrono::system_clock::now() < end) {
      // A closed channel wakes this wait early; otherwise it is the polling interval.
      client->channel()->WaitForStateChange(GRPC_CHANNEL_READY,
                                            std::chrono::system_clock::now() + std::chrono::milliseconds(50));
      continue;
    }
    if (client->json()) {
      std::puts(ToJson(response).c_str());
    } else {
      PrintStatus(response);
    }
    return !wait->has_value() || ready ? kOk : kRefused;
  }
}

}  // namespace sluice::cli
