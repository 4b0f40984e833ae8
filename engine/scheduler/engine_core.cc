#include "engine/scheduler/engine_core.h"

#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::engine {
namespace {

constexpr size_t kMaxMatches = 32;
constexpr int kUnhealthyAfter = 3;

// FNV-1a: a seed for requests that bring none, so that a retry with the same id repeats itself.
uint64_t SeedOf(const std::string& id) {
  uint64_t h = 0xcbf29ce484222325ULL;
  for (const unsigned char c : id) h = (h ^ c) * 0x100000001b3ULL;
  return h;
}

}  // namespace

EngineCore::EngineCore(Backend& backend, const SchedulerOptions& options, const Clock& clock, SchedulerProbe& probe)
    : backend_(backend),
      options_(options),
      clock_(clock),
      probe_(probe),
      max_rows_(std::min(options.max_batch_tokens, backend.capabilities().max_batch_tokens)),
      max_running_(options.max_running > 0 ? std::min(options.max_running, backend.geometry().slots)
                                           : backend.geometry().slots),
      slots_(backend.geometry().slots) {
  const Tokenizer& tokenizer = backend.tokenizer();
  for (TokenId t = 0; t < tokenizer.vocab_size(); ++t) {
    if (tokenizer.IsEndOfGeneration(t)) end_tokens_.push_back(t);
  }
}

void EngineCore::Enqueue(Generation generation, std::shared_ptr<TokenStream> stream) {
  SLUICE_CHECK(generation.priority >= 0 && generation.priority < kPriorities, "priorities are few");
  const uint64_t seed = generation.sampling.seed.value_or(SeedOf(generation.request_id));
  const int policy = PolicyIndex(generation.policy);
  sequences_.push_back(std::make_unique<Sequence>(std::move(generation), std::move(stream), next_order_++, seed));
  sequences_.back()->policy = policy;
}

int EngineCore::PolicyIndex(const PipelinePolicy& policy) {
  for (size_t i = 0; i < policies_.size(); ++i) {
    if (policies_[i].value.name == policy.name) {
      policies_[i].value = policy;  // the newest configuration orders the queue
      return static_cast<int>(i);
    }
  }
  policies_.push_back({policy, 0});
  return static_cast<int>(policies_.size()) - 1;
}

EngineCore::StepResult EngineCore::Step() {
  const MonoTime start = clock_.Now();
  Sweep(start);
  if (sequences_.empty()) return StepResult::kIdle;

  StepShape shape;
  std::vector<Row> rows = DecodeRows(shape);
  const StepPlan plan = Plan(shape, start);
  for (size_t p = 0; p < policies_.size(); ++p) policies_[p].service = plan.service[p];
  for (const PrefillChunk& chunk : plan.prefill) {
    Sequence& s = *sequences_[chunk.id];
    if (s.waiting()) Place(s);
    const int tokens = std::min(chunk.tokens, s.uncomputed());
    shape.prefill_tokens += tokens;
    shape.context += s.computed + tokens / 2.0;
    rows.push_back({&s, tokens});
  }
  if (rows.empty()) return StepResult::kBlocked;

  for (const Row& row : rows) {
    if (row.sequence->first_scheduled == MonoTime{}) row.sequence->first_scheduled = start;
  }
  if (const absl::Status status = Decode(rows); !status.ok()) {
    FailStep(rows, status);
    return StepResult::kComputed;
  }
  failures_in_a_row_ = 0;
  Emit(rows);
  ++steps_;
  const Duration elapsed = clock_.Now() - start;
  cost_.Observe(shape, elapsed);
  UpdateRates(shape, shape.prefill_tokens >= plan.allowance, elapsed);
  probe_.StepDone(shape, elapsed);
  return StepResult::kComputed;
}

void EngineCore::Sweep(MonoTime now) {
  for (const auto& s : sequences_) {
    if (s->stream->cancelled()) {
      Finish(*s, FinishReason::kCancelled, MakeError(Reason::kClientCancelled, "cancelled by the client"));
    } else if (now >= s->request.deadline) {
      const bool untouched = s->first_scheduled == MonoTime{};
      if (untouched) probe_.ExpiredBeforePrefill();
      const std::string where =
          untouched ? "before the prompt was computed" : fmt::format("after {} output tokens", s->output_size());
      Finish(
          *s, FinishReason::kDeadline,
          MakeError(untouched ? Reason::kDeadlineInQueue : Reason::kDeadlineExceeded, "the deadline passed " + where));
    } else if (now >= s->request.first_token_by && s->first_scheduled == MonoTime{}) {
      probe_.ExpiredBeforePrefill();
      Finish(*s, FinishReason::kDeadline,
             MakeError(Reason::kTtftUnreachable,
                       fmt::format("no token within {:.0f} ms: more urgent or shorter prompts were computed instead",
                                   ToMillis(s->request.first_token_by - s->request.submitted)),
                       {.retry_after = now - s->request.submitted}));
    } else if (s->decoding()) {
      const bool full = !s->stream->HasRoom();
      if (!full) s->paused_since = kInfiniteFuture;
      if (full && s->paused_since == kInfiniteFuture) s->paused_since = now;
      s->was_paused |= full;
      if (full && now - s->paused_since >= options_.slow_reader_timeout) {
        probe_.SlowReader();
        Finish(*s, FinishReason::kError,
               MakeError(Reason::kSlowReader,
                         fmt::format("the stream was not read for {} ms while {} tokens waited",
                                     ToMillis(now - s->paused_since), options_.stream_buffer_tokens)));
      }
    }
  }
  Collect();
}

std::vector<EngineCore::Row> EngineCore::DecodeRows(StepShape& shape) {
  std::vector<Row> rows;
  for (const auto& s : sequences_) {
    if (!s->decoding() || s->paused_since != kInfiniteFuture) continue;
    if (static_cast<int>(rows.size()) == max_rows_) break;  // needs more slots than rows: the rest waits a step
    rows.push_back({s.get(), 1});
    ++shape.decode_rows;
    shape.context += s->computed;
  }
  return rows;
}

int EngineCore::FreeSlots() const {
  const auto used = std::count_if(slots_.begin(), slots_.end(), [](const Slot& s) { return s.in_use; });
  return std::max(max_running_ - static_cast<int>(used), 0);
}

StepPlan EngineCore::Plan(const StepShape& decode, MonoTime now) {
  PlanInput input;
  input.decode = decode;
  input.free_slots = FreeSlots();
  input.max_rows = max_rows_;
  input.min_prefill_tokens = options_.min_prefill_tokens;
  input.idle_prefill_tokens = options_.idle_prefill_tokens;
  input.step_target = options_.step_target;
  input.step_stretch = options_.step_stretch;
  for (const Policy& p : policies_) {
    input.policies.push_back({p.value.order, p.value.ageing_tokens_per_ms, p.service});
  }
  late_.clear();
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& s = *sequences_[i];
    if (s.decoding() || (s.waiting() && input.free_slots == 0)) continue;
    AddCandidate(static_cast<int>(i), now, input);
  }
  if (decode.decode_rows > 0 && cost_.WantsDecodeOnly()) input.candidates.clear();
  if (!input.candidates.empty() || decode.decode_rows > 0) return PlanStep(input, cost_);
  // Nobody can make it, and nothing else runs: then they are computed, or a rate measured wrong would never be right.
  std::swap(input.candidates, late_);
  return PlanStep(input, cost_);
}

void EngineCore::AddCandidate(int id, MonoTime now, PlanInput& input) {
  const Sequence& s = *sequences_[id];
  PrefillCandidate c;
  c.id = id;
  c.policy = s.policy;
  c.needs_slot = s.waiting();
  c.position = s.computed;
  c.uncomputed = s.uncomputed();
  c.waited_ms = ToMillis(now - s.request.submitted);
  c.order = s.order;
  c.priority = s.request.priority;
  if (options_.promote_after > Duration::zero()) {
    c.priority = std::max<int64_t>(c.priority - (now - s.request.submitted) / options_.promote_after, 0);
  }
  if (s.waiting() && s.request.policy.reuse_prefix) {
    const auto matches = index_.Matches(s.request.cache_salt, s.request.prompt, kMaxMatches);
    const Reusable reusable = FindReusable(slots_, matches, s.prompt_size());
    // Somebody is computing more of this very prefix: wait for it instead of computing it twice.
    if (reusable.upcoming - reusable.now >= s.request.policy.min_reuse_tokens) return;
    if (reusable.now >= s.request.policy.min_reuse_tokens) {
      c.position = reusable.now;
      c.uncomputed -= reusable.now;
    }
  }
  const bool late = s.waiting() && SaturatingAdd(now, ShortestPrefill(c.uncomputed)) > s.request.first_token_by;
  (late ? late_ : input.candidates).push_back(c);
}

void EngineCore::Place(Sequence& s) {
  std::vector<PrefixIndex::Match> matches;
  if (s.request.policy.reuse_prefix) matches = index_.Matches(s.request.cache_salt, s.request.prompt, kMaxMatches);
  const bool can_copy = backend_.capabilities().copy_prefix;
  Placement p = PlaceSequence(slots_, matches, s.prompt_size(), s.request.policy.min_reuse_tokens, can_copy);
  Slot& slot = slots_[p.slot];
  absl::Status status;
  if (p.copy_from >= 0) {
    status = backend_.CopyPrefix(p.copy_from, p.slot, p.reused);
    if (status.ok()) probe_.PrefixCopied(p.reused);
  } else if (slot.computed > p.reused) {
    status = backend_.Truncate(p.slot, p.reused);
  }
  if (!status.ok()) {  // reuse is an optimization: compute it instead
    probe_.BackendFailed();
    p.reused = 0;
    SLUICE_CHECK(backend_.Truncate(p.slot, 0).ok(), "releasing a slot never fails");
  }
  s.slot = p.slot;
  s.computed = p.reused;
  s.cached = p.reused;
  slot.in_use = true;
  slot.computed = p.reused;
  if (s.request.policy.reuse_prefix) {
    index_.Set(p.slot, s.request.cache_salt, s.request.prompt);
  } else {
    index_.Remove(p.slot);
  }
}

absl::Status EngineCore::Decode(const std::vector<Row>& rows) {
  batch_.clear();
  for (const Row& row : rows) {
    Sequence& s = *row.sequence;
    for (int i = 0; i < row.tokens; ++i) {
      const int position = s.computed + i;
      const bool last = position + 1 == static_cast<int>(s.tokens.size());
      batch_.push_back({s.tokens[position], position, s.slot, last});
    }
  }
  return backend_.Decode(batch_);
}

void EngineCore::FailStep(const std::vector<Row>& rows, const absl::Status& status) {
  probe_.BackendFailed();
  ++failures_in_a_row_;
  // No room in KV memory leaves everything as it was: only newcomers have to go, if there are any.
  const bool no_room = absl::IsResourceExhausted(status);
  const bool has_prefill = std::any_of(rows.begin(), rows.end(), [](const Row& r) { return r.sequence->prefilling(); });
  for (const Row& row : rows) {
    Sequence& s = *row.sequence;
    if (no_room && has_prefill && s.decoding()) continue;
    s.computed = 0;  // its KV is undefined: nothing to keep
    Finish(s, FinishReason::kError,
           MakeError(no_room ? Reason::kEngineNoRoom : Reason::kEngineStepFailed,
                     fmt::format("the engine step failed: {}", std::string(status.message()))));
  }
  Collect();
}

void EngineCore::Emit(const std::vector<Row>& rows) {
  const MonoTime now = clock_.Now();
  int row_index = 0;
  bool ended = false;
  for (const Row& row : rows) {
    Sequence& s = *row.sequence;
    s.computed += row.tokens;
    slots_[s.slot].computed = s.computed;
    row_index += row.tokens;
    if (s.uncomputed() == 0) ended |= !Accept(s, row_index - 1, now);
  }
  if (ended) Collect();
}

bool EngineCore::Accept(Sequence& s, int logits_row, MonoTime now) {
  const bool ignore_eos = s.request.ignore_eos;
  std::span<const TokenId> banned;
  if (ignore_eos) banned = end_tokens_;
  SampledToken sampled = s.sampler.Sample(backend_.Logits(logits_row), banned);
  if (s.request.sampling.temperature == 0) {
    s.min_top2_margin = s.output_size() == 0 ? sampled.top2_margin : std::min(s.min_top2_margin, sampled.top2_margin);
  }
  if (s.first_token == MonoTime{}) {
    s.first_token = now;
  } else {
    probe_.TokenGap(now - s.last_token);
    if (!s.was_paused) s.longest_gap = std::max(s.longest_gap, now - s.last_token);
    s.was_paused = false;
  }
  s.last_token = now;
  const TokenId token = sampled.token;
  s.tokens.push_back(token);
  if (!ignore_eos && backend_.tokenizer().IsEndOfGeneration(token)) {
    Finish(s, FinishReason::kStop, absl::OkStatus());
    return false;
  }
  OutputText::Piece piece = s.text.Append(backend_.tokenizer().Piece(token, /*special=*/false));
  s.stop_string = std::move(piece.stop);
  s.stream->Push({std::move(sampled), std::move(piece.text)});
  if (piece.stopped) {
    Finish(s, FinishReason::kStop, absl::OkStatus());
    return false;
  }
  if (s.output_size() >= s.request.max_tokens) {
    Finish(s, FinishReason::kLength, absl::OkStatus());
    return false;
  }
  if (!s.stream->HasRoom()) {
    s.paused_since = now;
    s.was_paused = true;
  }
  return true;
}

void EngineCore::Finish(Sequence& s, FinishReason reason, absl::Status status) {
  const MonoTime now = clock_.Now();
  GenerationSummary summary;
  summary.reason = reason;
  summary.status = std::move(status);
  summary.stop_string = s.stop_string;
  summary.prompt_tokens = s.prompt_size();
  summary.cached_tokens = s.cached;
  summary.output_tokens = s.output_size();
  summary.min_top2_margin = s.min_top2_margin;
  const bool scheduled = s.first_scheduled != MonoTime{};
  summary.queue_wait = (scheduled ? s.first_scheduled : now) - s.request.submitted;
  if (s.first_token != MonoTime{}) {
    summary.prefill = s.first_token - s.first_scheduled;
    summary.ttft = s.first_token - s.request.submitted;
    summary.decode = s.last_token - s.first_token;
    summary.longest_gap = s.longest_gap;
  }
  if (s.slot >= 0) {
    Slot& slot = slots_[s.slot];
    const bool keep = s.request.policy.reuse_prefix && s.computed > 0;
    if (keep) {
      index_.Set(s.slot, s.request.cache_salt, std::span(s.tokens).first(s.computed));
    } else {
      index_.Remove(s.slot);
      SLUICE_CHECK(backend_.Truncate(s.slot, 0).ok(), "releasing a slot never fails");
    }
    slot = {.in_use = false, .computed = keep ? s.computed : 0, .last_used = steps_ + 1};
    s.slot = -1;
  }
  const bool whole = reason == FinishReason::kLength || (reason == FinishReason::kStop && s.stop_string.empty());
  s.stream->Finish(whole ? s.text.Flush() : std::string(), std::move(summary));
  s.finished = true;
}

void EngineCore::Collect() {
  std::erase_if(sequences_, [](const auto& s) { return s->finished; });
}

void EngineCore::AbortAll(const absl::Status& status) {
  for (const auto& s : sequences_) Finish(*s, FinishReason::kError, status);
  Collect();
}

void EngineCore::UpdateRates(const StepShape& shape, bool full, Duration elapsed) {
  constexpr double kKept = 0.9;
  const double seconds = std::max(ToSeconds(elapsed), 1e-6);
  if (shape.decode_rows > 0) {
    const double now = shape.decode_rows / seconds;
    decode_rate_ = decode_rate_ == 0 ? now : kKept * decode_rate_ + (1 - kKept) * now;
  }
  // A step that computed all there was says how little there was, not how fast it goes.
  if (shape.prefill_tokens == 0 || !full) return;
  prefill_tokens_ = kKept * prefill_tokens_ + shape.prefill_tokens;
  prefill_seconds_ = kKept * prefill_seconds_ + seconds;
}

Duration EngineCore::ShortestPrefill(int uncomputed) const {
  const double rate = PrefillRate();
  return rate > 0 ? FromMillis(1000 * uncomputed / rate) : Duration::zero();
}

int EngineCore::waiting() const {
  return static_cast<int>(
      std::count_if(sequences_.begin(), sequences_.end(), [](const auto& s) { return s->waiting(); }));
}

SchedulerStatus EngineCore::Status() const {
  SchedulerStatus status;
  status.slots = static_cast<int>(slots_.size());
  int held = 0;
  for (const auto& s : sequences_) {
    if (!s->decoding()) status.uncomputed_prompt_tokens[s->request.priority] += s->uncomputed();
    if (s->waiting()) {
      ++status.waiting;
      continue;
    }
    ++status.running;
    ++held;
    status.paused += s->paused_since != kInfiniteFuture ? 1 : 0;
    status.kv_tokens_used += s->computed;
  }
  const auto in_use = std::count_if(slots_.begin(), slots_.end(), [](const Slot& s) { return s.in_use; });
  status.orphaned = static_cast<int>(in_use) - held;
  status.kv_tokens_total = static_cast<uint64_t>(slots_.size()) * backend_.geometry().slot_context;
  status.steps = steps_;
  status.decode_tokens_per_second = decode_rate_;
  status.prefill_tokens_per_second = PrefillRate();
  status.healthy = failures_in_a_row_ < kUnhealthyAfter;
  return status;
}

}  // namespace sluice::engine
