#include "engine/llama/llama_backend.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/thread_name.h"
#include "engine/llama/llama_embedder.h"
#include "engine/llama/llama_handles.h"
#include "engine/llama/llama_loader.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_tokenizer.h"
#include "engine/llama/stream_map.h"

namespace sluice::engine {
namespace {

// Ends the OpenMP threads that worked for the calling thread. As long as there are more of them in the process than
// CPUs, all of them sleep at each barrier instead of spinning (libgomp), some hundred times a step.
void ReleaseComputeThreads() { omp_pause_resource_all(omp_pause_soft); }

constexpr int kKept = 1 << 24;  // in output_of_row_: more than any batch has rows

// In front of the bytes that Save returns. libllama aborts on some damaged states, so damage is found first.
struct SavedHeader {
  uint64_t fingerprint = 0;  // of the model and geometry
  uint64_t checksum = 0;     // of what follows
  int64_t length = 0;        // tokens
};

uint64_t HashBytes(const void* data, size_t size) {
  return std::hash<std::string_view>()(std::string_view(static_cast<const char*>(data), size));
}

uint64_t Fingerprint(const ModelFacts& facts, const KvGeometry& geometry) {
  const std::string identity =
      fmt::format("{} {} {} {} {} {} {}", facts.description, facts.weight_bytes, facts.parameter_count,
                  facts.kv_bytes_per_token, facts.vocab_size, geometry.slots, geometry.slot_context);
  return HashBytes(identity.data(), identity.size());
}

bool IsRecurrent(const llama_model& model) { return llama_model_is_recurrent(&model) || llama_model_is_hybrid(&model); }

BackendCapabilities ReadCapabilities(const llama_model& model, const LlamaOptions& options) {
  BackendCapabilities capabilities;
  // A recurrent state has no earlier version to return to; a sliding window has forgotten it.
  capabilities.truncate = !IsRecurrent(model) && llama_model_n_swa(&model) == 0;
  capabilities.copy_prefix = capabilities.truncate;  // a prefix is a copy without its tail
  capabilities.embeddings = true;
  capabilities.max_batch_tokens = options.max_batch_tokens;
  return capabilities;
}

// Moving a token reads and writes its KV twice, a pass reads the weights; both are bound by memory. The factor 1.5 is
// for libllama's bookkeeping. Measured on SmolLM2-135M: 14 us a token and 13 ms a pass. Recurrent models do not care
// for neighbours: libllama mixes their sequences freely.
double TokensPerPass(const llama_model& model, const ModelFacts& facts) {
  if (IsRecurrent(model) || facts.kv_bytes_per_token == 0) return -1;
  return static_cast<double>(facts.weight_bytes) / (static_cast<double>(facts.kv_bytes_per_token) * 4 * 1.5);
}

class LlamaBackend final : public Backend {
 public:
  LlamaBackend(const LlamaOptions& options, LlamaModelPtr model, std::unique_ptr<LlamaTokenizer> tokenizer,
               LlamaThreadpoolPtr pool, LlamaContextPtr context);

  const ModelFacts& facts() const override { return facts_; }
  const KvGeometry& geometry() const override { return options_.geometry; }
  const BackendCapabilities& capabilities() const override { return capabilities_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  absl::Status Decode(std::span<const BatchRow> rows) override;
  std::span<const float> Logits(int row) const override;
  absl::Status CopyPrefix(SequenceId from, SequenceId to, int length) override;
  absl::Status Truncate(SequenceId sequence, int length) override;
  absl::StatusOr<std::vector<uint8_t>> Save(SequenceId sequence) override;
  absl::Status Restore(SequenceId sequence, std::span<const uint8_t> bytes) override;
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenId> tokens) override;
  void Rest() override { ReleaseComputeThreads(); }

 private:
  // The rows of one sequence in a step.
  struct Run {
    SequenceId sequence;
    size_t first_row, row_count;
  };

  void CheckSequence(SequenceId sequence) const;
  int& Length(SequenceId sequence) { return lengths_[static_cast<size_t>(sequence)]; }
  absl::Status SplitIntoRuns(std::span<const BatchRow> rows);
  absl::Status GatherActiveStreams();
  // The runs that libllama shall compute in one call, from `begin` on: libllama cuts a call into passes in which every
  // sequence has as many rows, so sequences of different lengths cost less one after the other.
  std::span<const Run> NextCall(size_t begin) const;
  void SortRuns();
  void FillBatch(std::span<const BatchRow> rows, std::span<const Run> runs);
  void KeepLogits(std::span<const Run> runs);
  void ReadLengths();  // after a failure: what the KV really holds
  absl::Status Failed(int result, size_t computed, const LlamaErrorCapture& capture);
  // KV of one stream, appended to `bytes` / put back. Immediate, unlike llama_memory_seq_cp, which copies whole
  // buffers at the next decode and would overwrite or miss what is restored or saved before that.
  absl::Status ReadStream(int stream, std::vector<uint8_t>& bytes);
  absl::Status WriteStream(int stream, std::span<const uint8_t> bytes);
  void DropStream(int stream) { llama_memory_seq_rm(memory_, stream, -1, -1); }

  const LlamaOptions options_;
  const LlamaModelPtr model_;
  const std::unique_ptr<LlamaTokenizer> tokenizer_;
  const LlamaThreadpoolPtr pool_;
  const LlamaContextPtr context_;
  const llama_memory_t memory_;
  const ModelFacts facts_;
  const BackendCapabilities capabilities_;
  StreamMap streams_;
  std::vector<int> lengths_;                 // tokens by sequence
  std::unique_ptr<LlamaEmbedder> embedder_;  // made on first use

  // Of the step at hand; members so that they keep their memory.
  LlamaBatch batch_;
  std::vector<Run> runs_;
  std::vector<SequenceId> active_;
  // Where the logits of a row are: index in batch_, kKept + index in kept_logits_, or -1 without; empty after a
  // failure.
  std::vector<int> output_of_row_;
  std::vector<float> kept_logits_;  // of all calls but the last
  std::vector<uint8_t> scratch_, scratch2_;
};

LlamaBackend::LlamaBackend(const LlamaOptions& options, LlamaModelPtr model, std::unique_ptr<LlamaTokenizer> tokenizer,
                           LlamaThreadpoolPtr pool, LlamaContextPtr context)
    : options_(options),
      model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      pool_(std::move(pool)),
      context_(std::move(context)),
      memory_(llama_get_memory(context_.get())),
      facts_(ReadFacts(*model_)),
      capabilities_(ReadCapabilities(*model_, options)),
      streams_(options.geometry.slots, TokensPerPass(*model_, facts_)),
      lengths_(static_cast<size_t>(options.geometry.slots), 0),
      batch_(options.max_batch_tokens) {
  llama_attach_threadpool(context_.get(), pool_.get(), pool_.get());
}

void LlamaBackend::CheckSequence(SequenceId sequence) const {
  SLUICE_CHECK(sequence >= 0 && sequence < options_.geometry.slots, "sequence out of range");
}

absl::Status LlamaBackend::SplitIntoRuns(std::span<const BatchRow> rows) {
  SLUICE_CHECK(!rows.empty() && rows.size() <= static_cast<size_t>(options_.max_batch_tokens), "bad number of rows");
  runs_.clear();
  active_.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    const BatchRow& row = rows[i];
    CheckSequence(row.sequence);
    if (runs_.empty() || runs_.back().sequence != row.sequence) {
      SLUICE_CHECK(std::find(active_.begin(), active_.end(), row.sequence) == active_.end(), "split sequence");
      runs_.push_back({row.sequence, i, 0});
      active_.push_back(row.sequence);
    }
    Run& run = runs_.back();
    SLUICE_CHECK(row.position == Length(row.sequence) + static_cast<int>(run.row_count), "position is not the next");
    ++run.row_count;
    if (row.position >= options_.geometry.slot_context) {
      return absl::ResourceExhaustedError(
          fmt::format("sequence {} is full: a slot holds {} tokens", row.sequence, options_.geometry.slot_context));
    }
  }
  return absl::OkStatus();
}

absl::Status LlamaBackend::GatherActiveStreams() {
  for (const StreamSwap& swap : streams_.Plan(active_, lengths_)) {
    scratch_.clear();
    scratch2_.clear();
    const bool idle_holds_tokens = Length(streams_.SequenceAt(swap.idle)) > 0;
    const bool active_holds_tokens = Length(streams_.SequenceAt(swap.active)) > 0;
    if (active_holds_tokens) SLUICE_RETURN_IF_ERROR(ReadStream(swap.active, scratch_));
    if (idle_holds_tokens) SLUICE_RETURN_IF_ERROR(ReadStream(swap.idle, scratch2_));
    DropStream(swap.active);
    DropStream(swap.idle);
    streams_.Apply(swap);
    if (active_holds_tokens) SLUICE_RETURN_IF_ERROR(WriteStream(swap.idle, scratch_));
    if (idle_holds_tokens) SLUICE_RETURN_IF_ERROR(WriteStream(swap.active, scratch2_));
  }
  return absl::OkStatus();
}

void LlamaBackend::SortRuns() {
  // Single rows last: all of them have logits, and those of the last call need not be kept. What cannot be cut off
  // again after a failure is one call.
  std::sort(runs_.begin(), runs_.end(), [this](const Run& a, const Run& b) {
    if (a.row_count != b.row_count && capabilities_.truncate) return a.row_count > b.row_count;
    return streams_.StreamOf(a.sequence) < streams_.StreamOf(b.sequence);
  });
}

std::span<const LlamaBackend::Run> LlamaBackend::NextCall(size_t begin) const {
  const auto from = runs_.begin() + static_cast<std::ptrdiff_t>(begin);
  const auto end = std::find_if(
      from, runs_.end(), [&](const Run& run) { return capabilities_.truncate && run.row_count != from->row_count; });
  return {from, end};
}

void LlamaBackend::FillBatch(std::span<const BatchRow> rows, std::span<const Run> runs) {
  batch_.Clear();
  int next = 0;
  for (const Run& run : runs) {
    for (size_t i = run.first_row; i < run.first_row + run.row_count; ++i, ++next) {
      batch_.Add(rows[i].token, rows[i].position, streams_.StreamOf(run.sequence), rows[i].want_logits);
      if (rows[i].want_logits) output_of_row_[i] = next;
    }
  }
}

absl::Status LlamaBackend::Decode(std::span<const BatchRow> rows) try {
  output_of_row_.clear();
  SLUICE_RETURN_IF_ERROR(SplitIntoRuns(rows));
  LlamaErrorCapture capture;
  SLUICE_RETURN_IF_ERROR(GatherActiveStreams());
  SortRuns();
  output_of_row_.assign(rows.size(), -1);
  kept_logits_.clear();
  for (size_t begin = 0; begin < runs_.size();) {
    const std::span<const Run> call = NextCall(begin);
    FillBatch(rows, call);
    if (const int result = llama_decode(context_.get(), batch_.get()); result != 0)
      return Failed(result, begin, capture);
    begin += call.size();
    if (begin < runs_.size()) KeepLogits(call);
  }
  for (const Run& run : runs_) Length(run.sequence) += static_cast<int>(run.row_count);
  return absl::OkStatus();
} catch (const std::exception& e) {
  output_of_row_.clear();
  ReadLengths();
  return absl::InternalError(fmt::format("the step failed: {}", e.what()));
}

void LlamaBackend::ReadLengths() {
  for (const Run& run : runs_) {
    Length(run.sequence) = llama_memory_seq_pos_max(memory_, streams_.StreamOf(run.sequence)) + 1;
  }
}

void LlamaBackend::KeepLogits(std::span<const Run> runs) {
  const auto width = static_cast<size_t>(facts_.vocab_size);
  for (const Run& run : runs) {
    for (size_t i = run.first_row; i < run.first_row + run.row_count; ++i) {
      if (output_of_row_[i] < 0) continue;
      const float* logits = llama_get_logits_ith(context_.get(), output_of_row_[i]);
      SLUICE_CHECK(logits != nullptr, "libllama has no logits for the row");
      output_of_row_[i] = kKept + static_cast<int>(kept_logits_.size() / width);
      kept_logits_.insert(kept_logits_.end(), logits, logits + width);
    }
  }
}

// `computed`: so many of runs_ are in the KV.
absl::Status LlamaBackend::Failed(int result, size_t computed, const LlamaErrorCapture& capture) {
  output_of_row_.clear();
  if (result == 1) {  // everything is to be as before
    for (const Run& run : std::span(runs_).first(computed)) {
      SLUICE_CHECK(llama_memory_seq_rm(memory_, streams_.StreamOf(run.sequence), Length(run.sequence), -1),
                   "what was just computed can be cut off");
    }
    return absl::ResourceExhaustedError("no room in KV memory for this step");
  }
  ReadLengths();
  return absl::InternalError(
      fmt::format("the step failed with code {}: {}", result, capture.ReasonOr("libllama gave no reason")));
}

std::span<const float> LlamaBackend::Logits(int row) const {
  SLUICE_CHECK(row >= 0 && static_cast<size_t>(row) < output_of_row_.size(), "row is not of the last step");
  const int output = output_of_row_[static_cast<size_t>(row)];
  SLUICE_CHECK(output >= 0, "row did not ask for logits");
  const auto width = static_cast<size_t>(facts_.vocab_size);
  if (output >= kKept) return std::span(kept_logits_).subspan(static_cast<size_t>(output - kKept) * width, width);
  const float* logits = llama_get_logits_ith(context_.get(), output);
  SLUICE_CHECK(logits != nullptr, "libllama has no logits for the row");
  return {logits, width};
}

absl::Status LlamaBackend::ReadStream(int stream, std::vector<uint8_t>& bytes) {
  const size_t offset = bytes.size();
  const size_t size = llama_state_seq_get_size(context_.get(), stream);
  bytes.resize(offset + size);
  if (size == 0 || llama_state_seq_get_data(context_.get(), bytes.data() + offset, size, stream) != size) {
    return absl::InternalError("the KV of a sequence cannot be read");
  }
  return absl::OkStatus();
}

absl::Status LlamaBackend::WriteStream(int stream, std::span<const uint8_t> bytes) {
  if (llama_state_seq_set_data(context_.get(), bytes.data(), bytes.size(), stream) == 0) {
    return absl::InternalError("the KV of a sequence cannot be written");
  }
  return absl::OkStatus();
}

absl::Status LlamaBackend::CopyPrefix(SequenceId from, SequenceId to, int length) try {
  SLUICE_CHECK(capabilities_.copy_prefix, "the model cannot copy prefixes");
  CheckSequence(from);
  CheckSequence(to);
  SLUICE_CHECK(from != to && length >= 0 && length <= Length(from), "no such prefix");
  const int from_stream = streams_.StreamOf(from), to_stream = streams_.StreamOf(to);
  DropStream(to_stream);
  Length(to) = 0;
  if (length == 0) return absl::OkStatus();
  scratch_.clear();
  SLUICE_RETURN_IF_ERROR(ReadStream(from_stream, scratch_));
  SLUICE_RETURN_IF_ERROR(WriteStream(to_stream, scratch_));
  Length(to) = Length(from);
  return Truncate(to, length);
} catch (const std::exception& e) {
  return absl::InternalError(fmt::format("copying a prefix failed: {}", e.what()));
}

absl::Status LlamaBackend::Truncate(SequenceId sequence, int length) {
  CheckSequence(sequence);
  SLUICE_CHECK(length >= 0, "negative length");
  if (length >= Length(sequence)) return absl::OkStatus();
  if (length > 0 && !capabilities_.truncate) return absl::UnimplementedError("the model cannot forget a part");
  if (!llama_memory_seq_rm(memory_, streams_.StreamOf(sequence), length, -1)) {
    return absl::InternalError(fmt::format("the KV of sequence {} cannot be cut at {}", sequence, length));
  }
  Length(sequence) = length;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint8_t>> LlamaBackend::Save(SequenceId sequence) try {
  CheckSequence(sequence);
  SavedHeader header;
  header.fingerprint = Fingerprint(facts_, options_.geometry);
  header.length = Length(sequence);
  std::vector<uint8_t> bytes(sizeof(header));
  if (header.length > 0) SLUICE_RETURN_IF_ERROR(ReadStream(streams_.StreamOf(sequence), bytes));
  header.checksum = HashBytes(bytes.data() + sizeof(header), bytes.size() - sizeof(header));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
} catch (const std::exception& e) {
  return absl::InternalError(fmt::format("saving a sequence failed: {}", e.what()));
}

absl::Status LlamaBackend::Restore(SequenceId sequence, std::span<const uint8_t> bytes) try {
  CheckSequence(sequence);
  SavedHeader header;
  if (bytes.size() < sizeof(header)) return absl::DataLossError("a saved sequence is cut off");
  std::memcpy(&header, bytes.data(), sizeof(header));
  const std::span<const uint8_t> state = bytes.subspan(sizeof(header));
  if (header.fingerprint != Fingerprint(facts_, options_.geometry)) {
    return absl::DataLossError("a saved sequence belongs to another model or geometry");
  }
  if (header.checksum != HashBytes(state.data(), state.size())) {
    return absl::DataLossError("a saved sequence is damaged");
  }
  SLUICE_RETURN_IF_ERROR(Truncate(sequence, 0));
  if (header.length == 0) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(WriteStream(streams_.StreamOf(sequence), state));
  Length(sequence) = static_cast<int>(header.length);
  return absl::OkStatus();
} catch (const std::exception& e) {
  return absl::InternalError(fmt::format("restoring a sequence failed: {}", e.what()));
}

absl::StatusOr<std::vector<float>> LlamaBackend::Embed(std::span<const TokenId> tokens) {
  if (embedder_ == nullptr) {
    SLUICE_ASSIGN_OR_RETURN(embedder_,
                            LlamaEmbedder::Create(*model_, *pool_, options_.threads, options_.embedding_context));
  }
  return embedder_->Embed(tokens);
}

absl::Status CheckOptions(const LlamaOptions& options) {
  const int most_slots = static_cast<int>(llama_max_parallel_sequences());
  const KvGeometry& geometry = options.geometry;
  if (geometry.slots < 1 || geometry.slots > most_slots) {
    return absl::InvalidArgumentError(fmt::format("slots: got {}; allowed 1 to {}", geometry.slots, most_slots));
  }
  const int64_t tokens = static_cast<int64_t>(geometry.slots) * (static_cast<int64_t>(geometry.slot_context) + 256);
  if (geometry.slot_context < 1 || tokens > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        fmt::format("slot_context: got {} with {} slots", geometry.slot_context, geometry.slots));
  }
  if (options.threads < 1 || options.threads > GGML_MAX_N_THREADS || options.max_batch_tokens < 1 ||
      options.embedding_context < 1) {
    return absl::InvalidArgumentError("threads, max_batch_tokens and embedding_context must be positive");
  }
  return absl::OkStatus();
}

LlamaThreadpoolPtr MakeThreadpool(int threads) {
  ggml_threadpool_params params = ggml_threadpool_params_default(threads);
  params.poll = 0;  // between steps the cores belong to the threads that read and write the network
  const ScopedThreadName name(kComputeThread);  // the workers inherit it
  return LlamaThreadpoolPtr(ggml_threadpool_new(&params));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> LoadLlamaBackend(const LlamaOptions& options) try {
  SLUICE_RETURN_IF_ERROR(CheckOptions(options));
  const absl::Cleanup release = [] { ReleaseComputeThreads(); };  // they repacked the weights
  SLUICE_ASSIGN_OR_RETURN(LlamaModelPtr model, LoadModelFile(options.path, /*check_tensors=*/false));
  SLUICE_RETURN_IF_ERROR(CheckCanGenerate(*model, options.path));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<LlamaTokenizer> tokenizer, LlamaTokenizer::Create(*model));
  SLUICE_RETURN_IF_ERROR(CheckFitsInMemory(ReadFacts(*model), options.geometry));
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(options.geometry.slots * RoundUpSlotContext(options.geometry.slot_context));
  params.n_seq_max = static_cast<uint32_t>(options.geometry.slots);
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(options.max_batch_tokens);
  params.n_threads = params.n_threads_batch = options.threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
  params.kv_unified = false;
  params.swa_full = false;
  params.no_perf = true;
  SLUICE_ASSIGN_OR_RETURN(LlamaContextPtr context, MakeContext(*model, params, options.path));
  LlamaThreadpoolPtr pool = MakeThreadpool(options.threads);
  if (pool == nullptr) return absl::ResourceExhaustedError("the compute threads cannot be started");
  return std::make_unique<LlamaBackend>(options, std::move(model), std::move(tokenizer), std::move(pool),
                                        std::move(context));
} catch (const std::exception& e) {
  return absl::InternalError(fmt::format("{}: {}", options.path, e.what()));
}

}  // namespace sluice::engine
