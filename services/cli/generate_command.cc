#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "base/status.h"
#include "fmt/format.h"
#include "services/cli/client.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice::cli {
namespace {

namespace pb = ::sluice::v1;

absl::Status SetSampling(const Args& args, pb::Sampling& s) {
  const auto number = [&](const char* name, auto set) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const std::optional<double> v, args.Number(name));
    if (v.has_value()) set(static_cast<float>(*v));
    return absl::OkStatus();
  };
  SLUICE_RETURN_IF_ERROR(number("--temperature", [&](float v) { s.set_temperature(v); }));
  SLUICE_RETURN_IF_ERROR(number("--top-p", [&](float v) { s.set_top_p(v); }));
  SLUICE_RETURN_IF_ERROR(number("--min-p", [&](float v) { s.set_min_p(v); }));
  SLUICE_RETURN_IF_ERROR(number("--repetition-penalty", [&](float v) { s.set_repetition_penalty(v); }));
  SLUICE_RETURN_IF_ERROR(number("--presence-penalty", [&](float v) { s.set_presence_penalty(v); }));
  SLUICE_RETURN_IF_ERROR(number("--frequency-penalty", [&](float v) { s.set_frequency_penalty(v); }));
  SLUICE_ASSIGN_OR_RETURN(const std::optional<int64_t> top_k, args.Int("--top-k"));
  if (top_k.has_value()) s.set_top_k(static_cast<int32_t>(*top_k));
  SLUICE_ASSIGN_OR_RETURN(const std::optional<int64_t> seed, args.Int("--seed"));
  if (seed.has_value()) s.set_seed(static_cast<uint64_t>(*seed));
  SLUICE_ASSIGN_OR_RETURN(const std::optional<int64_t> logprobs, args.Int("--logprobs"));
  if (logprobs.has_value()) s.set_logprobs(static_cast<int32_t>(*logprobs));
  return absl::OkStatus();
}

absl::Status SetClass(const std::string& name, pb::GenerateRequest& request) {
  if (name.empty()) return absl::OkStatus();
  for (const auto& [word, value] :
       {std::pair{"system", pb::PRIORITY_CLASS_SYSTEM}, std::pair{"interactive", pb::PRIORITY_CLASS_INTERACTIVE},
        std::pair{"standard", pb::PRIORITY_CLASS_STANDARD}, std::pair{"batch", pb::PRIORITY_CLASS_BATCH}}) {
    if (name == word) {
      request.set_priority_class(value);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(fmt::format("--class is system, interactive, standard or batch, not '{}'", name));
}

absl::StatusOr<pb::GenerateRequest> BuildRequest(const Args& args) {
  if (args.operands().size() != 1) return absl::InvalidArgumentError("one PROMPT is needed ('-' reads it from stdin)");
  std::string prompt = args.operands()[0];
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  pb::GenerateRequest request;
  if (args.Has("--chat") || args.Has("--system")) {
    if (args.Has("--system")) {
      auto* message = request.mutable_chat()->add_messages();
      message->set_role("system");
      message->set_content(args.Get("--system"));
    }
    auto* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(prompt);
  } else {
    request.set_prompt(prompt);
  }
  request.set_model(args.Get("--model"));
  request.set_user(args.Get("--user"));
  request.set_tenant(args.Get("--tenant"));
  request.set_conversation(args.Get("--conversation"));
  request.set_request_id(args.Get("--request-id"));
  request.set_ignore_eos(args.Has("--ignore-eos"));
  request.set_truncate_prompt(args.Has("--truncate"));
  for (const std::string& stop : args.All("--stop")) request.add_stop(stop);
  SLUICE_ASSIGN_OR_RETURN(const std::optional<int64_t> max_tokens, args.Int("--max-tokens"));
  if (max_tokens.has_value()) request.set_max_tokens(static_cast<int32_t>(*max_tokens));
  SLUICE_ASSIGN_OR_RETURN(const std::optional<int64_t> deadline, args.Int("--deadline-ms"));
  if (deadline.has_value()) request.set_deadline_ms(*deadline);
  SLUICE_RETURN_IF_ERROR(SetClass(args.Get("--class"), request));
  SLUICE_RETURN_IF_ERROR(SetSampling(args, *request.mutable_sampling()));
  return request;
}

void PrintSummary(const pb::Finish& f) {
  const bool color = isatty(STDERR_FILENO) != 0;
  std::fprintf(stderr,
               "%s%d tokens (%d prompt, %d cached), first after %.0f ms, %.1f tokens/s, ended by %s, %s pipeline%s\n",
               color ? "\033[2m" : "", f.usage().output_tokens(), f.usage().prompt_tokens(), f.usage().cached_tokens(),
               f.timings().ttft_ms(), f.timings().tokens_per_second(), f.reason().c_str(), f.pipeline().c_str(),
               color ? "\033[0m" : "");
}

}  // namespace

const Command& GenerateSpec() {
  static const Command spec = {
      .name = "generate",
      .operands = "PROMPT",
      .summary = "stream text from a model to the terminal",
      .options = {{"--model", "NAME", "which model (the server's default)"},
                  {"--chat", "", "send PROMPT as a user's message, through the model's chat template"},
                  {"--system", "TEXT", "a system message before it (implies --chat)"},
                  {"--max-tokens", "N", "output tokens at most (256)"},
                  {"--temperature", "T", "0 is greedy, up to 2 (0.8)"},
                  {"--top-p", "P", "nucleus sampling, above 0 to 1 (0.95)"},
                  {"--top-k", "K", "0 is off (40)"},
                  {"--min-p", "P", "0 is off (0.05)"},
                  {"--repetition-penalty", "R", "1 is off"},
                  {"--presence-penalty", "P", "-2 to 2, 0 is off"},
                  {"--frequency-penalty", "P", "-2 to 2, 0 is off"},
                  {"--seed", "N", "repeat the same text"},
                  {"--stop", "TEXT", "end before this text; may be repeated"},
                  {"--logprobs", "N", "with --json: log probabilities, N alternatives each"},
                  {"--ignore-eos", "", "go on after the model's own end"},
                  {"--truncate", "", "drop the start of a prompt that is too long"},
                  {"--class", "CLASS", "system, interactive, standard or batch"},
                  {"--user", "ID", "end user: decides feature flags"},
                  {"--conversation", "ID", "conversation: decides them when there is no user"},
                  {"--tenant", "ID", "tenant (a token's own tenant wins)"},
                  {"--request-id", "ID", "shown in logs and trailers"},
                  {"--deadline-ms", "N", "the server gives up after this long"}},
      .examples =
          "  sluicectl generate \"The capital of France is\" --max-tokens 16\n"
          "  sluicectl generate --chat \"Explain tides in one sentence.\" --temperature 0\n"
          "  cat notes.txt | sluicectl generate --system \"Summarize.\" - --json\n"};
  return spec;
}

int GenerateCommand(const Args& args) {
  const auto request = BuildRequest(args);
  const auto client = Client::Connect(args);
  for (const absl::Status& status : {request.status(), client.status()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "sluicectl generate: %s\n", std::string(status.message()).c_str());
    return kUsage;
  }
  auto stub = pb::InferenceService::NewStub(client->channel());
  grpc::ClientContext context;
  client->Prepare(context);
  auto reader = stub->Generate(&context, *request);
  pb::GenerateResponse message;
  pb::Finish finish;
  while (reader->Read(&message)) {
    const std::string out = client->json() ? ToJson(message) + "\n" : message.text();
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
    if (message.has_finish()) finish = message.finish();
  }
  const grpc::Status status = reader->Finish();
  if (!client->json()) std::fputs("\n", stdout);
  if (!status.ok()) return client->Fail(status);
  if (!client->json()) PrintSummary(finish);
  return kOk;
}

}  // namespace sluice::cli
