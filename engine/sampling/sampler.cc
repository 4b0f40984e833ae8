#include "engine/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "engine/sampling/sampling_math.h"

namespace sluice::engine {
namespace {

struct Top2 {
  float best = kMinusInfinity;
  float second = kMinusInfinity;
  TokenId token = -1;  // the lowest id that has `best`; -1: every logit is -inf or NaN
};

// NaN loses every comparison, and so never enters.
float Max(std::span<const float> values) {
  typedef float Lanes __attribute__((vector_size(16)));  // spelled out: compilers give up on this loop
  Lanes best[4];
  for (Lanes& b : best) b = Lanes{kMinusInfinity, kMinusInfinity, kMinusInfinity, kMinusInfinity};
  size_t i = 0;
  for (; i + 16 <= values.size(); i += 16) {
    for (size_t part = 0; part < 4; ++part) {
      Lanes x;
      std::memcpy(&x, values.data() + i + 4 * part, sizeof x);
      best[part] = x > best[part] ? x : best[part];
    }
  }
  float max = kMinusInfinity;
  for (const Lanes& b : best) {
    for (int lane = 0; lane < 4; ++lane) max = b[lane] > max ? b[lane] : max;
  }
  for (; i < values.size(); ++i) max = values[i] > max ? values[i] : max;
  return max;
}

// The greedy fast path: one pass over the vocabulary for the best value of each chunk, then a look into the winner.
Top2 FindTop2(std::span<const float> logits) {
  constexpr size_t kChunk = 512;
  Top2 top;
  size_t winner = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const float max = Max(logits.subspan(begin, std::min(kChunk, logits.size() - begin)));
    if (max > top.best) {
      top.second = top.best;
      top.best = max;
      winner = begin;
    } else if (max > top.second) {
      top.second = max;
    }
  }
  if (!(top.best > kMinusInfinity)) return top;
  const auto chunk = logits.subspan(winner, std::min(kChunk, logits.size() - winner));
  const auto at = static_cast<size_t>(std::find(chunk.begin(), chunk.end(), top.best) - chunk.begin());
  top.token = static_cast<TokenId>(winner + at);
  top.second = std::max({top.second, Max(chunk.first(at)), Max(chunk.subspan(at + 1))});
  return top;
}

struct Candidate {
  float value = 0;  // a logit or a weight
  TokenId token = 0;
};

// A strict total order, so that selections have one possible result in every standard library.
bool Better(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token < b.token;
}

// The `k` best finite logits, in no particular order.
std::vector<Candidate> SelectTopK(std::span<const float> logits, size_t k) {
  const size_t capacity = 2 * k + 64;
  std::vector<Candidate> kept;
  kept.reserve(std::min(capacity, logits.size()));
  const auto shrink = [&] {
    std::nth_element(kept.begin(), kept.begin() + (k - 1), kept.end(), Better);
    kept.resize(k);
  };
  float threshold = kMinusInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > threshold)) continue;  // an equal logit of a later id loses the tie, NaN loses always
    kept.push_back({CleanLogit(logits[i]), static_cast<TokenId>(i)});
    if (kept.size() == capacity) {
      shrink();
      threshold = kept.back().value;  // nth_element left the k-th there
    }
  }
  if (kept.size() > k) shrink();
  return kept;
}

uint64_t TotalMass(std::span<const Candidate> candidates) {
  uint64_t total = 0;
  for (const Candidate& c : candidates) total += FixedWeight(c.value);
  return total;
}

// The worst member of the shortest best-first prefix of mass >= `need`. Halves the range instead of sorting it:
// O(candidates). Requires: 0 < need <= total mass.
Candidate LastOfPrefix(std::vector<Candidate> candidates, uint64_t need) {
  size_t low = 0;
  size_t high = candidates.size();
  while (high - low > 16) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(candidates.begin() + low, candidates.begin() + middle, candidates.begin() + high, Better);
    const uint64_t mass = TotalMass({candidates.data() + low, middle - low});
    if (mass >= need) {
      high = middle;
    } else {
      need -= mass;
      low = middle;
    }
  }
  std::sort(candidates.begin() + low, candidates.begin() + high, Better);
  for (; low < high; ++low) {
    const uint64_t mass = FixedWeight(candidates[low].value);
    if (mass >= need) return candidates[low];
    need -= mass;
  }
  SLUICE_CHECK(false, "the caller asks for at most the total mass");
  return {};
}

// Top-p: drops every candidate that is not in the shortest best-first prefix of mass >= `need`.
void KeepNucleus(std::vector<Candidate>& candidates, uint64_t need) {
  const Candidate last = LastOfPrefix(candidates, need);
  std::erase_if(candidates, [&](const Candidate& c) { return Better(last, c); });
}

uint64_t NucleusMass(float top_p, uint64_t total) {
  const double need = std::ceil(static_cast<double>(top_p) * static_cast<double>(total));
  return std::clamp<uint64_t>(static_cast<uint64_t>(need), 1, total);
}

// Candidates among all `weights` that can belong to the nucleus, by id, and its mass `need`. Adds masses up by binary
// exponent, and then gathers only the exponents that are needed: mostly a few dozen tokens.
std::vector<Candidate> GatherNucleus(std::span<const float> weights, float top_p, uint64_t& need) {
  constexpr int kExponents = 41;  // FixedWeight() is zero below 2^-40
  std::array<uint64_t, kExponents> mass{};
  for (const float w : weights) {
    if (w >= 0x1p-40F) mass[127 - static_cast<int>(std::bit_cast<uint32_t>(w) >> 23)] += FixedWeight(w);
  }
  uint64_t total = 0;
  for (const uint64_t m : mass) total += m;
  need = NucleusMass(top_p, total);
  float smallest = 1.0F;
  for (uint64_t sum = mass[0], e = 0; sum < need; sum += mass[++e]) smallest *= 0.5F;
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] >= smallest) candidates.push_back({weights[i], static_cast<TokenId>(i)});
  }
  return candidates;
}

float LogSumExp(std::span<const float> logits, float max) {
  constexpr size_t kChunk = 512;
  std::array<float, kChunk> weights;
  std::array<double, 4> sums{};  // four chains of additions instead of one
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t size = std::min(kChunk, logits.size() - begin);
    for (size_t i = 0; i < size; ++i) weights[i] = ExpNonPositive(CleanLogit(logits[begin + i]) - max);
    for (size_t i = 0; i < size; ++i) sums[i % 4] += weights[i];
  }
  return static_cast<float>(max + std::log(sums[0] + sums[1] + sums[2] + sums[3]));
}

}  // namespace

struct Sampler::State {
  SamplingParams params;
  SplitMix64 random;
  bool penalties = false;
  // Tokens that a penalty may touch → how often they were chosen (0: in the prompt only).
  absl::flat_hash_map<TokenId, int> seen;
  std::vector<float> scratch;  // adjusted logits; kept between calls to save the allocation

  void ApplyPenalties(std::span<float> logits) const {
    for (const auto& [token, count] : seen) {
      if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
      float& x = logits[token];
      x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
      x -= params.frequency_penalty * static_cast<float>(count);
      if (count > 0) x -= params.presence_penalty;
    }
  }

  // Top-k, top-p, min-p and the draw. `max` is the largest logit, finite. Leaves weights in `logits`.
  TokenId Draw(std::span<float> logits, float max) {
    const float temperature = params.temperature;
    const auto weigh = [=](float x) { return ExpNonPositive((x - max) / temperature); };
    const bool top_p = params.top_p < 1.0F;
    std::vector<Candidate> candidates;  // by id, so that the draw does not depend on how a library selects
    uint64_t need = 0;
    if (params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size()) {
      candidates = SelectTopK(logits, params.top_k);
      std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
      for (Candidate& c : candidates) c.value = weigh(c.value);
      need = NucleusMass(params.top_p, TotalMass(candidates));
    } else {
      for (float& x : logits) x = weigh(CleanLogit(x));
      if (!top_p) return DrawFromAll(logits);
      candidates = GatherNucleus(logits, params.top_p, need);
    }
    if (top_p) KeepNucleus(candidates, need);
    std::erase_if(candidates, [&](const Candidate& c) { return c.value < params.min_p; });
    uint64_t left = Uniform(TotalMass(candidates));
    for (const Candidate& c : candidates) {
      const uint64_t mass = FixedWeight(c.value);
      if (left < mass) return c.token;
      left -= mass;
    }
    SLUICE_CHECK(false, "the draw is below the total");
    return 0;
  }

  // The same without top-k and top-p: no list of candidates, the weights themselves will do.
  TokenId DrawFromAll(std::span<float> weights) {
    uint64_t total = 0;
    for (float& w : weights) {
      w = w < params.min_p ? 0.0F : w;
      total += FixedWeight(w);
    }
    uint64_t left = Uniform(total);
    for (size_t i = 0; i < weights.size(); ++i) {
      const uint64_t mass = FixedWeight(weights[i]);
      if (left < mass) return static_cast<TokenId>(i);
      left -= mass;
    }
    SLUICE_CHECK(false, "the draw is below the total");
    return 0;
  }

  uint64_t Uniform(uint64_t below) {
    const double at = random.NextDouble() * static_cast<double>(below);
    return std::min(static_cast<uint64_t>(at), below - 1);  // the product may round up
  }

  void FillLogprobs(std::span<const float> logits, SampledToken& out) const {
    const float max = CleanLogit(FindTop2(logits).best);
    if (!(max > kMinusInfinity)) {
      out.logprob = kMinusInfinity;
      return;
    }
    const float norm = LogSumExp(logits, max);
    out.logprob = CleanLogit(logits[out.token]) - norm;
    if (params.logprobs <= 0) return;
    std::vector<Candidate> best = SelectTopK(logits, params.logprobs);
    std::sort(best.begin(), best.end(), Better);
    for (const Candidate& c : best) out.top.push_back({c.token, c.value - norm});
  }
};

Sampler::Sampler(const SamplingParams& params, uint64_t seed, std::span<const TokenId> prompt)
    : state_(new State{.params = params, .random = SplitMix64(seed)}) {
  const bool repetition = params.repetition_penalty != 1.0F;
  state_->penalties = repetition || params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
  if (!repetition) return;
  for (const TokenId token : prompt) state_->seen.try_emplace(token, 0);
}

Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

SampledToken Sampler::Sample(std::span<const float> logits, std::span<const TokenId> banned) {
  SLUICE_CHECK(!logits.empty(), "a vocabulary has tokens");
  State& s = *state_;
  const bool greedy = s.params.temperature <= 0.0F;
  std::span<const float> adjusted = logits;
  if (s.penalties || !banned.empty() || !greedy) {
    s.scratch.assign(logits.begin(), logits.end());
    if (s.penalties) s.ApplyPenalties(s.scratch);
    for (const TokenId token : banned) {
      if (token >= 0 && static_cast<size_t>(token) < logits.size()) s.scratch[token] = kMinusInfinity;
    }
    adjusted = s.scratch;
  }
  const Top2 top = FindTop2(adjusted);
  SampledToken out;
  if (top.token < 0) {
    const auto is_banned = [&](TokenId t) { return std::find(banned.begin(), banned.end(), t) != banned.end(); };
    while (static_cast<size_t>(out.token) < logits.size() && is_banned(out.token)) ++out.token;
    if (static_cast<size_t>(out.token) == logits.size()) out.token = 0;
  } else if (greedy) {
    out.token = top.token;
    out.top2_margin = std::min(CleanLogit(top.best) - CleanLogit(top.second), kLargestFloat);
  } else {
    out.token = s.Draw(s.scratch, CleanLogit(top.best));
  }
  if (s.params.want_logprobs || s.params.logprobs > 0) s.FillLogprobs(logits, out);
  if (s.penalties) ++s.seen[out.token];
  return out;
}

}  // namespace sluice::engine
