#include "services/qos_facts.h"

#include <numeric>

#include "base/status.h"

namespace sluice::services {
namespace {

using engine::FinishReason;
using engine::GenerationSummary;

bool ServerFault(const absl::Status& s) {
  return absl::IsInternal(s) || absl::IsUnavailable(s) || absl::IsUnknown(s) || absl::IsDataLoss(s);
}

}  // namespace

qos::PolicyUse PolicyUseOf(const flags::Decision& qos_policy) {
  if (!qos_policy.in) return qos::PolicyUse::kOff;
  return qos_policy.dry_run ? qos::PolicyUse::kDryRun : qos::PolicyUse::kEnforce;
}

qos::EngineLoad EngineLoadOf(const engine::SchedulerStatus& s, qos::QosClass seen_by) {
  const auto prompts = s.uncomputed_prompt_tokens.begin();
  return {.slots = s.slots,
          .running = s.running,
          .waiting = s.waiting,
          .uncomputed_prompt_tokens = std::accumulate(prompts, prompts + static_cast<int>(seen_by) + 1, int64_t{0}),
          .prefill_tokens_per_second = s.prefill_tokens_per_second,
          .decode_tokens_per_second = s.decode_tokens_per_second,
          .kv_usage = s.kv_tokens_total == 0
                          ? 0
                          : static_cast<double>(s.kv_tokens_used) / static_cast<double>(s.kv_tokens_total)};
}

qos::Outcome OutcomeOf(const absl::Status& refusal) {
  return ServerFault(refusal) ? qos::Outcome::kFailure : qos::Outcome::kClientFault;
}

qos::Outcome OutcomeOf(const GenerationSummary& s) {
  switch (s.reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return qos::Outcome::kSuccess;
    case FinishReason::kCancelled:
      return qos::Outcome::kCancelled;
    case FinishReason::kDeadline:
      return qos::Outcome::kDeadline;
    case FinishReason::kError:
      return OutcomeOf(s.status);
  }
  return qos::Outcome::kFailure;
}

qos::CallOutcome BreakerOutcomeOf(const GenerationSummary& s) {
  const qos::Outcome outcome = OutcomeOf(s);
  if (outcome == qos::Outcome::kSuccess) return qos::CallOutcome::kSuccess;
  const bool stalled = outcome == qos::Outcome::kDeadline && s.output_tokens == 0 && s.queue_wait > Duration::zero() &&
                       GetErrorDetails(s.status).reason == Reason::kDeadlineExceeded;
  return outcome == qos::Outcome::kFailure || stalled ? qos::CallOutcome::kFailure : qos::CallOutcome::kIgnored;
}

qos::QosEngine::End EndOf(const InferenceRequest& request, std::string_view model, MonoTime now, qos::Outcome outcome,
                          const GenerationSummary* summary) {
  qos::QosEngine::End end{.request_id = request.request_id, .outcome = outcome};
  end.sample = {.tenant = request.tenant,
                .model = model,
                .qos_class = request.qos_class,
                .ended = now,
                .counts = outcome == qos::Outcome::kSuccess || outcome == qos::Outcome::kFailure,
                .failed = outcome == qos::Outcome::kFailure};
  if (summary == nullptr) return end;
  end.prompt_tokens = summary->output_tokens > 0 ? summary->prompt_tokens : 0;
  end.sample.queue_wait = summary->queue_wait;
  end.sample.output_tokens = summary->output_tokens;
  if (summary->output_tokens > 0) end.sample.ttft = summary->ttft;
  if (summary->output_tokens > 1) end.sample.tpot = summary->decode / (summary->output_tokens - 1);
  if (outcome == qos::Outcome::kSuccess) end.sample.latency = now - request.arrival;
  return end;
}

}  // namespace sluice::services
