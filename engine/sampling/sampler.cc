#include "engine/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "engine/sampling/sampling_math.h"

namespace sluice::engine {
namespace {

struct Top2 {
  float best = kMinusInfinity;
  float second = kMinusInfinity;
  TokenId token = -1;  // the lowest id that has `best`; -1: every logit is -inf or NaN

  void Merge(float value) {  // values only; `token` is found afterwards
    if (value > best) {
      second = best;
      best = value;
    } else if (value > second) {
      second = value;
    }
  }
};

// The greedy fast path: one vectorized pass over values, chunk by chunk, then a look into the winning chunk only.
Top2 FindTop2(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  constexpr size_t kChunk = 1024;
  Top2 top;
  size_t winner = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t size = std::min(kChunk, logits.size() - begin);
    const float* const in = logits.data() + begin;
    std::array<float, kLanes> best;
    std::array<float, kLanes> second;
    best.fill(kMinusInfinity);
    second.fill(kMinusInfinity);
    size_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float x = in[i + lane];  // NaN loses every comparison below, and so never enters
        const float loser = best[lane] < x ? best[lane] : x;
        second[lane] = loser > second[lane] ? loser : second[lane];
        best[lane] = x > best[lane] ? x : best[lane];
      }
    }
    const float before = top.best;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      top.Merge(best[lane]);
      top.Merge(second[lane]);
    }
    for (; i < size; ++i) top.Merge(in[i]);
    if (top.best > before) winner = begin;
  }
  if (top.best > kMinusInfinity) {
    top.token = static_cast<TokenId>(std::find(logits.begin() + winner, logits.end(), top.best) - logits.begin());
  }
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
    const float x = CleanLogit(logits[i]);
    if (!(x > threshold)) continue;  // an equal logit of a later id loses the tie
    kept.push_back({x, static_cast<TokenId>(i)});
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

// Rearranges weights so that the first n are the shortest best-first prefix of mass >= `need`, its worst member last;
// returns n. Halves the range instead of sorting it: O(candidates). Requires: 0 < need <= total mass.
size_t PrefixReaching(std::vector<Candidate>& candidates, uint64_t need) {
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
    if (mass >= need) return low + 1;
    need -= mass;
  }
  SLUICE_CHECK(false, "the caller asks for at most the total mass");
  return high;
}

uint64_t NucleusMass(float top_p, uint64_t total) {
  const double need = std::ceil(static_cast<double>(top_p) * static_cast<double>(total));
  return std::clamp<uint64_t>(static_cast<uint64_t>(need), 1, total);
}

// Candidates among all `weights` that can belong to the nucleus. Adds masses up by binary exponent, and then gathers
// only the tokens whose exponent is needed: mostly a few dozen, never sorted as a whole.
std::vector<Candidate> GatherNucleus(std::span<const float> weights, float top_p, uint64_t& need) {
  constexpr int kExponents = 42;  // FixedWeight() is zero below 2^-40
  const auto exponent = [](float w) { return 127 - static_cast<int>(std::bit_cast<uint32_t>(w) >> 23); };
  std::array<uint64_t, kExponents> mass{};
  for (const float w : weights) {
    if (w >= 0x1p-40F) mass[exponent(w)] += FixedWeight(w);
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
  constexpr size_t kLanes = 16;
  double sum = 0;
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    std::array<float, kLanes> e;
    for (size_t lane = 0; lane < kLanes; ++lane) e[lane] = ExpNonPositive(CleanLogit(logits[i + lane]) - max);
    float part = 0;
    for (const float x : e) part += x;
    sum += part;
  }
  for (; i < logits.size(); ++i) sum += ExpNonPositive(CleanLogit(logits[i]) - max);
  return static_cast<float>(max + std::log(sum));
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
    const auto weigh = [&](float x) { return ExpNonPositive((x - max) / params.temperature); };
    const bool top_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
    const bool top_p = params.top_p < 1.0F;
    std::vector<Candidate> candidates;
    uint64_t need = 0;
    if (top_k) {
      candidates = SelectTopK(logits, params.top_k);
      for (Candidate& c : candidates) c.value = weigh(c.value);
      if (top_p) need = NucleusMass(params.top_p, TotalMass(candidates));
    } else {
      for (float& x : logits) x = weigh(CleanLogit(x));
      if (!top_p) return DrawById(logits);
      candidates = GatherNucleus(logits, params.top_p, need);
    }
    if (top_p) candidates.resize(PrefixReaching(candidates, need));
    std::erase_if(candidates, [&](const Candidate& c) { return c.value < params.min_p; });
    const uint64_t at = Uniform(TotalMass(candidates));
    return candidates[PrefixReaching(candidates, at + 1) - 1].token;
  }

  // The draw when only min-p filters: no order is needed, so ids will do.
  TokenId DrawById(std::span<float> weights) {
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
