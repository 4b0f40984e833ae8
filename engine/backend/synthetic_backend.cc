#include "engine/backend/synthetic_backend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "engine/backend/synthetic_tokenizer.h"

namespace sluice::engine {
namespace {

using Tokenized = SyntheticTokenizer;

constexpr float kFloorLogit = -10.0F;     // far below every peak, yet a sampler may see it
constexpr float kControlLogit = -100.0F;  // never sampled unless it is a peak
constexpr float kEndLogit = 24.0F;        // an ending holds at any temperature
constexpr size_t kPeaks = 4;

// Now and then the model speaks a character of several byte tokens, which must not reach a client in halves.
constexpr std::array<std::string_view, 3> kMultiByte = {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};  // é € 😀
constexpr uint64_t kWordsPerMultiByte = 32;

uint64_t Mix(uint64_t a, uint64_t b) {  // the finalizer of SplitMix64 over both words
  uint64_t z = a + 0x9E3779B97F4A7C15U * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

// What the KV of one sequence would hold: its tokens, and a hash of each prefix.
struct Sequence {
  std::vector<TokenId> tokens;
  std::vector<uint64_t> hashes;  // hashes[i] = of the first i tokens
  bool undefined = false;        // a Decode failed: release it first

  void Reset(uint64_t seed) {
    tokens.clear();
    hashes.assign(1, Mix(seed, 0));
    undefined = false;
  }
  void Push(TokenId token) {
    hashes.push_back(Mix(hashes.back(), static_cast<uint64_t>(token)));
    tokens.push_back(token);
  }
  void Shrink(size_t length) {
    tokens.resize(length);
    hashes.resize(length + 1);
  }
};

// The byte that continues an unfinished multi-byte character at the end of `tokens`; -1: there is none.
TokenId ContinuationByte(std::span<const TokenId> tokens) {
  for (const std::string_view text : kMultiByte) {
    for (size_t n = 1; n < text.size() && n <= tokens.size(); ++n) {
      const auto tail = tokens.last(n);
      if (std::equal(tail.begin(), tail.end(), text.begin(),
                     [](TokenId token, char byte) { return token == static_cast<unsigned char>(byte); })) {
        return static_cast<unsigned char>(text[n]);
      }
    }
  }
  return -1;
}

// The logits of one row. Only the (distinct) peaks differ from row to row, so only they are written.
struct LogitRow {
  std::vector<float> values;
  std::array<TokenId, kPeaks> peaks{};

  void Set(const std::array<TokenId, kPeaks>& tokens, uint64_t hash) {
    for (const TokenId token : peaks) values[token] = Resting(token);
    for (size_t i = 0; i < kPeaks; ++i) {
      const auto jitter = static_cast<float>(hash >> (8 * i) & 0xFF) / 512.0F;  // < 0.5: the order stands
      values[tokens[i]] = 8.0F - static_cast<float>(i) + jitter;
    }
    if (tokens[0] == Tokenized::kTurnEnd) values[tokens[0]] = kEndLogit;
    peaks = tokens;
  }
  static float Resting(TokenId token) {
    return token >= Tokenized::kBos && token < Tokenized::kFirstWord ? kControlLogit : kFloorLogit;
  }
};

}  // namespace

struct SyntheticBackend::State {
  State(const SyntheticOptions& o, Sleeper s) : options(o), sleep(std::move(s)), tokenizer(o.vocab_size) {}

  const SyntheticOptions options;
  const Sleeper sleep;
  const SyntheticTokenizer tokenizer;
  ModelFacts facts;
  BackendCapabilities capabilities;
  std::vector<Sequence> sequences;
  std::vector<LogitRow> logits;  // as many as one step ever wanted
  std::vector<int> logit_row;    // row of the last Decode → index into `logits`; -1: not asked for
  uint64_t mutating_calls = 0;

  Sequence& At(SequenceId id) {
    SLUICE_CHECK(id >= 0 && id < options.geometry.slots, "the sequence id is within the slots");
    return sequences[id];
  }
  Sequence& Defined(SequenceId id) {
    Sequence& sequence = At(id);
    SLUICE_CHECK(!sequence.undefined, "a sequence whose step failed is released before it is used again");
    return sequence;
  }
  absl::Status InjectFault() {
    const uint64_t index = mutating_calls++;
    return options.inject_fault ? options.inject_fault(index) : absl::OkStatus();
  }
  void Spend(Duration cost) const {
    if (sleep && cost > Duration::zero()) sleep(cost);
  }
  uint64_t Fingerprint() const { return Mix(Mix(options.seed, options.vocab_size), options.geometry.slot_context); }

  Duration CheckRows(std::span<const BatchRow> rows);
  std::array<TokenId, kPeaks> PeaksAfter(const Sequence& sequence) const;
};

// Checks the whole contract before anything changes; returns what the step costs.
Duration SyntheticBackend::State::CheckRows(std::span<const BatchRow> rows) {
  SLUICE_CHECK(!rows.empty(), "a step has rows");
  SLUICE_CHECK(rows.size() <= static_cast<size_t>(options.max_batch_tokens),
               "a step has at most max_batch_tokens rows");
  std::vector<bool> visited(options.geometry.slots);
  Duration cost = options.step_cost;
  for (size_t begin = 0; begin < rows.size();) {
    const SequenceId id = rows[begin].sequence;
    const size_t length = Defined(id).tokens.size();
    SLUICE_CHECK(!visited[id], "the rows of a sequence are contiguous");
    visited[id] = true;
    size_t end = begin;
    for (; end < rows.size() && rows[end].sequence == id; ++end) {
      SLUICE_CHECK(rows[end].token >= 0 && rows[end].token < options.vocab_size, "the token is in the vocabulary");
      SLUICE_CHECK(rows[end].position >= 0 && static_cast<size_t>(rows[end].position) == length + (end - begin),
                   "positions continue the sequence");
      SLUICE_CHECK(rows[end].position < options.geometry.slot_context, "the sequence fits its slot");
    }
    const int64_t count = static_cast<int64_t>(end - begin);
    cost += count == 1 ? options.decode_row_cost : options.prefill_row_cost * count;
    begin = end;
  }
  return cost;
}

// The most likely next tokens, best first: a pure function of the seed and the tokens so far.
std::array<TokenId, kPeaks> SyntheticBackend::State::PeaksAfter(const Sequence& sequence) const {
  const uint64_t hash = sequence.hashes.back();
  std::array<TokenId, kPeaks> peaks;
  const auto words = static_cast<uint64_t>(options.vocab_size - Tokenized::kFirstWord);
  for (size_t i = 0; i < kPeaks; ++i) {  // neighbours by a stride, so that they differ
    peaks[i] = Tokenized::kFirstWord + static_cast<TokenId>(((hash >> 8) % words + i * 7) % words);
  }
  if (const TokenId next = ContinuationByte(sequence.tokens); next >= 0) {
    peaks[0] = next;
  } else if (const uint64_t dice = Mix(hash, 1); dice % kWordsPerMultiByte == 0) {
    peaks[0] = static_cast<unsigned char>(kMultiByte[(dice >> 32) % kMultiByte.size()][0]);
  }
  if (options.natural_length_max > 0) {
    // One ending in every block of half the maximum (and one), at a place that the tokens before the block decide:
    // whatever the prompt, generation meets one before two blocks are full.
    const size_t block = options.natural_length_max / 2 + 1;
    const size_t length = sequence.tokens.size();
    const size_t start = length / block * block;
    if (length - start == Mix(sequence.hashes[start], 2) % block) peaks[0] = Tokenized::kTurnEnd;
  }
  return peaks;
}

SyntheticBackend::SyntheticBackend(const SyntheticOptions& options, Sleeper sleep)
    : state_(std::make_unique<State>(options, std::move(sleep))) {
  SLUICE_CHECK(options.geometry.slots > 0 && options.geometry.slot_context > 0, "the geometry holds something");
  SLUICE_CHECK(options.max_batch_tokens > 0 && options.embedding_size > 0, "sizes are positive");
  state_->facts = {.architecture = "synthetic",
                   .description = "synthetic, " + std::to_string(options.vocab_size) + " tokens",
                   .file_type = "none",
                   .kv_bytes_per_token = sizeof(TokenId) + sizeof(uint64_t),
                   .vocab_size = options.vocab_size,
                   .embedding_size = options.embedding_size,
                   .train_context = options.geometry.slot_context,
                   .layer_count = 1};
  state_->capabilities = {.copy_prefix = true,
                          .copy_is_free = options.copy_cost_per_token == Duration::zero(),
                          .truncate = true,
                          .embeddings = true,
                          .max_batch_tokens = options.max_batch_tokens};
  state_->sequences.resize(options.geometry.slots);
  for (Sequence& sequence : state_->sequences) sequence.Reset(options.seed);
}

SyntheticBackend::~SyntheticBackend() = default;

const ModelFacts& SyntheticBackend::facts() const { return state_->facts; }
const KvGeometry& SyntheticBackend::geometry() const { return state_->options.geometry; }
const BackendCapabilities& SyntheticBackend::capabilities() const { return state_->capabilities; }
const Tokenizer& SyntheticBackend::tokenizer() const { return state_->tokenizer; }

absl::Status SyntheticBackend::Decode(std::span<const BatchRow> rows) {
  State& s = *state_;
  s.logit_row.clear();
  const Duration cost = s.CheckRows(rows);
  if (absl::Status fault = s.InjectFault(); !fault.ok()) {
    // RESOURCE_EXHAUSTED changes nothing; after any other failure the caller may only release these sequences.
    for (const BatchRow& row : rows) s.At(row.sequence).undefined |= !absl::IsResourceExhausted(fault);
    return fault;
  }
  size_t wanted = 0;
  for (const BatchRow& row : rows) {
    Sequence& sequence = s.At(row.sequence);
    sequence.Push(row.token);
    s.logit_row.push_back(row.want_logits ? static_cast<int>(wanted) : -1);
    if (!row.want_logits) continue;
    if (wanted == s.logits.size()) {
      LogitRow& fresh = s.logits.emplace_back();
      for (TokenId token = 0; token < s.options.vocab_size; ++token) fresh.values.push_back(LogitRow::Resting(token));
    }
    s.logits[wanted++].Set(s.PeaksAfter(sequence), Mix(sequence.hashes.back(), 3));
  }
  s.Spend(cost);
  return absl::OkStatus();
}

std::span<const float> SyntheticBackend::Logits(int row) const {
  const State& s = *state_;
  SLUICE_CHECK(row >= 0 && static_cast<size_t>(row) < s.logit_row.size(), "the row is of the last successful Decode");
  SLUICE_CHECK(s.logit_row[row] >= 0, "the row asked for logits");
  return s.logits[s.logit_row[row]].values;
}

absl::Status SyntheticBackend::CopyPrefix(SequenceId from, SequenceId to, int length) {
  State& s = *state_;
  SLUICE_CHECK(from != to, "a sequence is not copied onto itself");
  const Sequence& source = s.Defined(from);
  Sequence& target = s.At(to);
  SLUICE_CHECK(length >= 0 && static_cast<size_t>(length) <= source.tokens.size(), "the source holds that many tokens");
  if (absl::Status fault = s.InjectFault(); !fault.ok()) return fault;
  target.tokens.assign(source.tokens.begin(), source.tokens.begin() + length);
  target.hashes.assign(source.hashes.begin(), source.hashes.begin() + length + 1);
  target.undefined = false;
  s.Spend(s.options.copy_cost_per_token * length);
  return absl::OkStatus();
}

absl::Status SyntheticBackend::Truncate(SequenceId sequence, int length) {
  State& s = *state_;
  SLUICE_CHECK(length >= 0, "a length is not negative");
  Sequence& target = length == 0 ? s.At(sequence) : s.Defined(sequence);
  if (absl::Status fault = s.InjectFault(); !fault.ok()) return fault;
  if (length == 0) {
    target.Reset(s.options.seed);
  } else if (static_cast<size_t>(length) < target.tokens.size()) {
    target.Shrink(length);
  }
  return absl::OkStatus();
}

// Layout: fingerprint of the model, hash of the tokens, tokens.
absl::StatusOr<std::vector<uint8_t>> SyntheticBackend::Save(SequenceId sequence) {
  const Sequence& source = state_->Defined(sequence);
  const std::array<uint64_t, 2> head = {state_->Fingerprint(), source.hashes.back()};
  std::vector<uint8_t> bytes(sizeof head + source.tokens.size() * sizeof(TokenId));
  std::memcpy(bytes.data(), head.data(), sizeof head);
  std::copy_n(reinterpret_cast<const uint8_t*>(source.tokens.data()), bytes.size() - sizeof head,
              bytes.data() + sizeof head);
  return bytes;
}

absl::Status SyntheticBackend::Restore(SequenceId sequence, std::span<const uint8_t> bytes) {
  State& s = *state_;
  Sequence& target = s.At(sequence);
  if (absl::Status fault = s.InjectFault(); !fault.ok()) return fault;
  std::array<uint64_t, 2> head;
  if (bytes.size() < sizeof head || (bytes.size() - sizeof head) % sizeof(TokenId) != 0) {
    return absl::DataLossError("saved KV has a wrong size");
  }
  std::memcpy(head.data(), bytes.data(), sizeof head);
  const size_t count = (bytes.size() - sizeof head) / sizeof(TokenId);
  if (head[0] != s.Fingerprint() || count > static_cast<size_t>(s.options.geometry.slot_context)) {
    return absl::DataLossError("saved KV is of another model or geometry");
  }
  Sequence restored;
  restored.Reset(s.options.seed);
  for (size_t i = 0; i < count; ++i) {
    TokenId token = 0;
    std::memcpy(&token, bytes.data() + sizeof head + i * sizeof token, sizeof token);
    restored.Push(token);
  }
  if (restored.hashes.back() != head[1]) return absl::DataLossError("saved KV is damaged");
  target = std::move(restored);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> SyntheticBackend::Embed(std::span<const TokenId> tokens) {
  const State& s = *state_;
  if (tokens.empty()) return absl::InvalidArgumentError("nothing to embed");
  if (tokens.size() > static_cast<size_t>(s.options.geometry.slot_context)) {
    return absl::InvalidArgumentError("got " + std::to_string(tokens.size()) + " tokens to embed; allowed 1 to " +
                                      std::to_string(s.options.geometry.slot_context));
  }
  uint64_t hash = Mix(s.options.seed, 4);
  for (const TokenId token : tokens) hash = Mix(hash, static_cast<uint64_t>(token));
  std::vector<float> vector(s.options.embedding_size);
  double squares = 0;
  for (size_t i = 0; i < vector.size(); ++i) {
    vector[i] = static_cast<float>(Mix(hash, i) >> 40) * 0x1p-23F - 1.0F;  // [-1, 1)
    squares += static_cast<double>(vector[i]) * vector[i];
  }
  for (float& x : vector) x = static_cast<float>(x / std::sqrt(squares));
  s.Spend(s.options.step_cost + s.options.prefill_row_cost * static_cast<int64_t>(tokens.size()));
  return vector;
}

}  // namespace sluice::engine
