#include "services/request_flow.h"

#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "fmt/format.h"
#include "qos/policy_bucket.h"
#include "services/prompt.h"
#include "services/qos_facts.h"

namespace sluice::services {
namespace {

using engine::GenerationSummary;

RolloutArms::Fate FateOf(qos::CallOutcome outcome) {
  if (outcome == qos::CallOutcome::kSuccess) return RolloutArms::Fate::kServed;
  return outcome == qos::CallOutcome::kFailure ? RolloutArms::Fate::kFailed : RolloutArms::Fate::kNotCounted;
}

class RequestHeaders final : public flags::HeaderSource {
 public:
  explicit RequestHeaders(const std::map<std::string, std::string>& headers) : headers_(headers) {}
  std::string_view Header(std::string_view name) const override {
    for (const auto& [known, value] : headers_) {  // a handful; map::find would need a std::string
      if (known == name) return value;
    }
    return {};
  }

 private:
  const std::map<std::string, std::string>& headers_;
};

}  // namespace

// One request on its way. Lives as long as its next callback; the steps follow each other from top to bottom.
class RequestFlow::Run final : public FlowTicket, public std::enable_shared_from_this<Run> {
 public:
  Run(const Parts& parts, const FlowLimits& limits, InferenceRequest request)
      : parts_(parts), limits_(limits), request_(std::move(request)) {
    info_.request_id = request_.request_id;
    info_.model = request_.model;
    if (request_.caller.authenticated) request_.tenant = request_.caller.tenant;
    request_.qos_class = qos::Clamp(request_.qos_class, request_.caller.highest_class);
    info_.tenant = request_.tenant;
    if (request_.deadline == kInfiniteFuture && limits_.default_deadline > Duration::zero()) {
      request_.deadline = SaturatingAdd(request_.arrival, limits_.default_deadline);
      default_deadline_ = true;
    }
  }

  void Generate(OpenCallback opened) {
    opened_ = std::move(opened);
    WithModel([self = shared_from_this()] { self->Prepare(); });
  }

  void Embed(std::vector<std::string> inputs, EmbedCallback done) {
    embed_inputs_ = std::move(inputs);
    embedded_ = std::move(done);
    WithModel([self = shared_from_this()] { self->PrepareEmbedding(); });
  }

  void Cancel() override {
    std::shared_ptr<engine::TokenStream> stream;
    uint64_t ticket = 0;
    {
      MutexLock lock(mu_);
      cancelled_ = true;
      stream = stream_;
      ticket = ticket_;
    }
    if (ticket != 0) parts_.qos.Cancel(ticket);
    if (stream != nullptr) stream->Cancel();
  }

 private:
  // --- 0: which model, and what does the prompt mean to it? ---
  void WithModel(std::function<void()> next) {
    const absl::Status allowed = CheckMayUse(parts_.models, request_.caller, request_.model);
    if (!allowed.ok()) return Refuse(allowed);
    parts_.models.AcquireOrLoad(request_.model, request_.deadline,
                                [self = shared_from_this(), next](absl::StatusOr<engine::ModelHandle> model) {
                                  if (!model.ok()) return self->Refuse(model.status());
                                  self->model_ = *std::move(model);
                                  self->info_.model = self->model_->spec().name;
                                  next();
                                });
  }

  void Prepare() {
    auto prompt = PreparePrompt(request_, *model_, {limits_.default_max_tokens, limits_.max_tokens_limit});
    if (!prompt.ok()) return Refuse(prompt.status());
    prompt_ = *std::move(prompt);
    prompt_tokens_ = static_cast<int>(prompt_.tokens.size());
    Gate();
    Admit(prompt_tokens_, [self = shared_from_this()] { self->OpenPipeline(); });
  }

  std::string_view TargetingKey(const InferenceRequest& r) const { return limits_.targeting_key.Of(r); }

  // --- 1 gate: which features is this request in? ---
  void Gate() {
    const RequestHeaders headers(request_.headers);
    decisions_ = parts_.gate.Decide({.targeting_key = TargetingKey(request_),
                                     .tenant = request_.tenant,
                                     .user = request_.user,
                                     .model = info_.model,
                                     .qos_class = qos::QosClassName(request_.qos_class),
                                     .headers = &headers,
                                     .now = parts_.clock.WallNow()});
    info_.flags = fmt::format("{}, {}, {}", flags::Explain(decisions_.phase5), flags::Explain(decisions_.ttft_pipeline),
                              flags::Explain(decisions_.qos_policy));
    parts_.probe.Decided(request_, TargetingKey(request_), decisions_);
  }

  // --- 2 admit: may it run, when, with what limits? ---
  void Admit(int prompt_tokens, std::function<void()> next) {
    const qos::Request request{.request_id = request_.request_id,
                               .tenant = request_.tenant,
                               .model = info_.model,
                               .key_hash = qos::StableHash(TargetingKey(request_)),
                               .qos_class = request_.qos_class,
                               .prompt_tokens = prompt_tokens,
                               .max_tokens = prompt_.max_tokens,
                               .prompt_bytes = static_cast<size_t>(prompt_tokens) * sizeof(engine::TokenId),
                               .arrival = request_.arrival,
                               .deadline = request_.deadline,
                               .previous_attempts = request_.previous_attempts,
                               .default_deadline = default_deadline_,
                               .ttft_objective = request_.ttft_objective};
    const uint64_t ticket = parts_.qos.Admit(request, EngineLoadOf(model_->scheduler().Status(), request_.qos_class),
                                             PolicyUseOf(decisions_.qos_policy), grant_,
                                             [self = shared_from_this(), next](const absl::Status& admitted) {
                                               self->info_.qos = self->grant_.explanation;
                                               if (!admitted.ok()) return self->Refuse(admitted);
                                               self->prompt_.max_tokens = self->grant_.max_tokens;
                                               if (self->grant_.shortened) {
                                                 self->info_.max_tokens_limit = self->grant_.max_tokens;
                                               }
                                               next();
                                             });
    if (ticket == 0) return;
    bool left = false;
    {
      MutexLock lock(mu_);
      ticket_ = ticket;
      left = cancelled_;
    }
    if (left) parts_.qos.Cancel(ticket);
  }

  // --- 3 pipeline: the same engine, another policy; a broken ttft pipeline falls back before anybody is refused ---
  void OpenPipeline() {
    const flags::Decision& ttft = decisions_.ttft_pipeline;
    engine::PipelinePolicy policy = engine::BaselinePolicy();
    const qos::PolicyEffects::Actions* actions = grant_.actions();
    switched_ = actions != nullptr && actions->pipeline == engine::kBaselinePipeline;
    if (ttft.in && !ttft.dry_run && switched_) {
      info_.qos += fmt::format(";pipeline=baseline:{}", actions->pipeline_by);
    } else if (ttft.in && !ttft.dry_run) {
      call_ = parts_.breakers.Get(info_.model, engine::kTtftPipeline).TryAcquire();
      if (call_.has_value()) {
        policy = engine::TtftPolicy({.warmup_queue = decisions_.snapshot->FeatureOn(ttft, "warmup_queue"),
                                     .kv_prep = decisions_.snapshot->FeatureOn(ttft, "kv_prep")});
      } else {
        info_.qos += ";fallback=TTFT_CIRCUIT_OPEN";
        fell_back_ = true;
      }
    }
    info_.pipeline = policy.name;
    if (!call_.has_value()) {
      qos::CircuitBreaker& breaker = parts_.breakers.Get(info_.model, engine::kBaselinePipeline);
      call_ = breaker.TryAcquire();
      if (!call_.has_value()) {
        return Refuse(MakeError(Reason::kCircuitOpen,
                                fmt::format("model '{}' keeps failing: its circuit breakers are open", info_.model),
                                {.retry_after = breaker.RetryAfter()}));
      }
    }
    BeginPart(std::move(policy));
  }

  // From here on the request counts for its arm of a rollout, whatever serves it.
  void BeginPart(engine::PipelinePolicy policy) {
    const int64_t tokens = static_cast<int64_t>(prompt_.tokens.size()) + prompt_.max_tokens;
    part_ = parts_.arms.Begin(decisions_, tokens * static_cast<int64_t>(model_->facts().kv_bytes_per_token));
    RunPart(std::move(policy));
  }

  void RunPart(engine::PipelinePolicy policy) {
    if (parts_.faults == nullptr) return OpenStream(std::move(policy));
    const FaultInjection::Strike strike = parts_.faults->Next(info_.pipeline);
    parts_.arms.Leak(part_, strike.leaked);
    parts_.faults->After(strike.delay, [self = shared_from_this(), policy = std::move(policy), fail = strike.fail] {
      if (!fail) return self->OpenStream(policy);
      self->call_->Report(qos::CallOutcome::kFailure, qos::CallTimes());
      if (self->FallBack()) return self->RunPart(engine::BaselinePolicy());
      self->Refuse(MakeError(Reason::kFaultInjected, "this pipeline fails on purpose: faults are injected"));
    });
  }

  // The ttft pipeline failed before its stream began: nothing was lost, so baseline serves and the client sees nothing.
  bool FallBack() {
    if (info_.pipeline != engine::kTtftPipeline) return false;
    call_ = parts_.breakers.Get(info_.model, engine::kBaselinePipeline).TryAcquire();
    if (!call_.has_value()) return false;
    info_.pipeline = engine::kBaselinePipeline;
    info_.qos += ";fallback=TTFT_FAILED";
    fell_back_ = true;
    return true;
  }

  MonoTime FirstTokenBy() const {
    const bool asked = limits_.drop_late && request_.ttft_objective > Duration::zero();
    return asked ? SaturatingAdd(request_.arrival, request_.ttft_objective) : kInfiniteFuture;
  }

  // --- 4 stream: tokens flow from the engine thread to whoever reads ---
  void OpenStream(engine::PipelinePolicy policy) {
    engine::Generation generation{.request_id = request_.request_id,
                                  .prompt = std::move(prompt_.tokens),
                                  .sampling = request_.sampling,
                                  .max_tokens = prompt_.max_tokens,
                                  .stop_strings = request_.stop_strings,
                                  .ignore_eos = request_.ignore_eos,
                                  .submitted = request_.arrival,
                                  .deadline = request_.deadline,
                                  .first_token_by = FirstTokenBy(),
                                  .priority = static_cast<int>(request_.qos_class),
                                  .cache_salt = request_.tenant,
                                  .policy = std::move(policy)};
    auto stream = model_->scheduler().Submit(
        std::move(generation), [self = shared_from_this()](const GenerationSummary& s) { self->Settle(s); });
    if (!stream.ok()) return Refuse(stream.status());
    bool left = false;
    {
      MutexLock lock(mu_);
      stream_ = *stream;
      left = cancelled_;
    }
    if (left) (*stream)->Cancel();
    std::exchange(opened_, nullptr)(OpenedStream{*std::move(stream), model_}, info_);
  }

  // --- 5 outcome: breaker, permit, metrics and log learn how it went (on the engine thread, before the reader) ---
  void Settle(const GenerationSummary& summary) {
    call_->Report(BreakerOutcomeOf(summary), {.ttft = summary.ttft, .longest_stall = summary.longest_gap});
    parts_.qos.Settle(grant_, EndOf(request_, info_.model, parts_.clock.Now(), OutcomeOf(summary), &summary));
    EndPart(FateOf(BreakerOutcomeOf(summary)), summary.ttft);
    parts_.probe.Finished(request_, info_, summary.status, &summary);
  }

  void EndPart(RolloutArms::Fate fate, Duration ttft) {
    if (switched_) fate = RolloutArms::Fate::kNotCounted;  // what the policy did says nothing about either arm
    parts_.arms.Finish(part_, {.fate = fate,
                               .ttft_was_forced_off = fell_back_,
                               .user = qos::StableHash(TargetingKey(request_)),
                               .prompt_tokens = prompt_tokens_,
                               .ttft = ttft,
                               .latency = parts_.clock.Now() - request_.arrival,
                               .request_id = request_.request_id});
  }

  // The way ends early. A permit or breaker call taken already is given back without blame.
  void Refuse(const absl::Status& status) {
    call_.reset();
    if (grant_.permit.has_value()) {
      parts_.qos.Settle(grant_, EndOf(request_, info_.model, parts_.clock.Now(), OutcomeOf(status), nullptr));
    }
    const bool failed = OutcomeOf(status) == qos::Outcome::kFailure;
    EndPart(failed ? RolloutArms::Fate::kFailed : RolloutArms::Fate::kNotCounted, Duration::zero());
    parts_.probe.Finished(request_, info_, status, nullptr);
    if (opened_) std::exchange(opened_, nullptr)(status, info_);
    if (embedded_) std::exchange(embedded_, nullptr)(status, 0, info_);
  }

  // --- embeddings: the same steps, another engine call ---
  void PrepareEmbedding();
  void EmbedNext(size_t index);

  const Parts parts_;
  const FlowLimits limits_;
  InferenceRequest request_;
  FlowInfo info_;
  engine::ModelHandle model_;
  PreparedPrompt prompt_;
  flags::RequestDecisions decisions_;
  bool default_deadline_ = false;  // of request_; the client chose none
  qos::Grant grant_;
  std::optional<qos::CircuitBreaker::Call> call_;
  RolloutArms::Part part_;
  bool fell_back_ = false;  // assigned to ttft, served by baseline
  bool switched_ = false;   // to baseline, with everybody in its scope, by a policy
  int prompt_tokens_ = 0;
  OpenCallback opened_;

  int embed_prompt_tokens_ = 0;
  std::vector<std::string> embed_inputs_;
  std::vector<std::vector<engine::TokenId>> embed_tokens_;
  std::vector<std::vector<float>> embeddings_;
  EmbedCallback embedded_;

  // Guards what Cancel needs; everything else belongs to the step that runs. Leaf lock.
  Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t ticket_ ABSL_GUARDED_BY(mu_) = 0;
  std::shared_ptr<engine::TokenStream> stream_ ABSL_GUARDED_BY(mu_);
};

void RequestFlow::Run::PrepareEmbedding() {
  int tokens = 0;
  for (const std::string& input : embed_inputs_) {
    auto ids = model_->tokenizer().Tokenize(input, /*add_special=*/true, /*parse_special=*/false);
    if (!ids.ok()) return Refuse(ids.status());
    tokens += static_cast<int>(ids->size());
    embed_tokens_.push_back(*std::move(ids));
  }
  embed_prompt_tokens_ = tokens;
  info_.pipeline = engine::kBaselinePipeline;
  Gate();
  Admit(tokens, [self = shared_from_this()] { self->EmbedNext(0); });
}

void RequestFlow::Run::EmbedNext(size_t index) {
  bool left = false;
  {
    MutexLock lock(mu_);
    left = cancelled_;
  }
  if (left) return Refuse(MakeError(Reason::kClientCancelled, "cancelled by the client"));
  if (index == embed_tokens_.size()) {
    qos::QosEngine::End end = EndOf(request_, info_.model, parts_.clock.Now(), qos::Outcome::kSuccess, nullptr);
    end.prompt_tokens = embed_prompt_tokens_;
    end.sample.counts = false;  // no token, no latency objective of a generation
    parts_.qos.Settle(grant_, end);
    parts_.probe.Finished(request_, info_, absl::OkStatus(), nullptr);
    std::exchange(embedded_, nullptr)(std::move(embeddings_), embed_prompt_tokens_, info_);
    return;
  }
  const absl::Status submitted = model_->scheduler().SubmitEmbedding(
      embed_tokens_[index], request_.deadline,
      [self = shared_from_this(), index](absl::StatusOr<std::vector<float>> embedding) {
        if (!embedding.ok()) return self->Refuse(embedding.status());
        self->embeddings_.push_back(*std::move(embedding));
        self->EmbedNext(index + 1);
      });
  if (!submitted.ok()) Refuse(submitted);
}

RequestFlow::RequestFlow(const Parts& parts, const FlowLimits& limits) : parts_(parts), limits_(limits) {}

std::shared_ptr<FlowTicket> RequestFlow::Start(InferenceRequest request, OpenCallback opened) {
  auto run = std::make_shared<Run>(parts_, limits_, std::move(request));
  run->Generate(std::move(opened));
  return run;
}

std::shared_ptr<FlowTicket> RequestFlow::Embed(InferenceRequest request, std::vector<std::string> inputs,
                                               EmbedCallback done) {
  auto run = std::make_shared<Run>(parts_, limits_, std::move(request));
  run->Embed(std::move(inputs), std::move(done));
  return run;
}

}  // namespace sluice::services
