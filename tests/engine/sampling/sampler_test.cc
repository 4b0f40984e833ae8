#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::engine {
namespace {

using testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(std::mt19937_64& random, size_t size, float spread = 10.0F) {
  std::vector<float> logits(size);
  for (float& x : logits) x = (static_cast<float>(random() >> 40) * 0x1p-24F - 0.5F) * spread;
  return logits;
}

// --- Brute-force references, in double and by sorting everything ---

std::vector<double> Adjusted(const std::vector<float>& logits, const SamplingParams& params,
                             const std::vector<TokenId>& prompt, const std::vector<TokenId>& output) {
  std::vector<double> out(logits.begin(), logits.end());
  std::set<TokenId> seen(prompt.begin(), prompt.end());
  seen.insert(output.begin(), output.end());
  for (const TokenId t : seen) {
    double& x = out[t];
    x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
  }
  for (const TokenId t : output) out[t] -= params.frequency_penalty;
  for (const TokenId t : std::set<TokenId>(output.begin(), output.end())) out[t] -= params.presence_penalty;
  return out;
}

std::map<TokenId, double> Distribution(const std::vector<double>& logits, const SamplingParams& params) {
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && params.top_k < static_cast<int>(order.size())) order.resize(params.top_k);
  std::vector<double> weights;
  for (const TokenId t : order) weights.push_back(std::exp((logits[t] - logits[order[0]]) / params.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t keep = weights.size();
  if (params.top_p < 1) {
    double sum = 0;
    for (keep = 0; keep < weights.size() && sum < params.top_p * total; ++keep) sum += weights[keep];
  }
  std::map<TokenId, double> result;
  double kept = 0;
  for (size_t i = 0; i < keep; ++i) {
    if (weights[i] < params.min_p) continue;
    result[order[i]] = weights[i];
    kept += weights[i];
  }
  for (auto& [token, p] : result) p /= kept;
  return result;
}

// Draws from fixed logits and compares the frequencies with `want`; also checks that nothing else is drawn.
void ExpectDistribution(const std::vector<float>& logits, const SamplingParams& params,
                        const std::map<TokenId, double>& want, uint64_t seed) {
  constexpr int kDraws = 20'000;
  Sampler sampler(params, seed, {});
  std::map<TokenId, int> counts;
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.Sample(logits, {}).token];
  double chi_square = 0;
  int degrees = -1;
  double rare_expected = 0;
  double rare_seen = 0;
  for (const auto& [token, p] : want) {
    const double expected = p * kDraws;
    const double seen = counts.contains(token) ? counts[token] : 0;
    counts.erase(token);
    if (expected < 8) {
      rare_expected += expected;
      rare_seen += seen;
      continue;
    }
    chi_square += (seen - expected) * (seen - expected) / expected;
    ++degrees;
  }
  if (rare_expected >= 8) {
    chi_square += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
    ++degrees;
  }
  EXPECT_TRUE(counts.empty()) << "token " << counts.begin()->first << " is outside of the allowed set; seed " << seed;
  if (degrees > 0) {
    EXPECT_LT(chi_square, degrees + 5 * std::sqrt(2.0 * degrees) + 8) << degrees << " degrees; seed " << seed;
  }
}

// --- Greedy ---

TEST(SamplerTest, GreedyMatchesASortAtEverySize) {
  const uint64_t seed = 20240601;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (size_t size = 1; size < 2200; size += size < 80 ? 1 : 97) {
    for (int round = 0; round < 20; ++round) {
      std::vector<float> logits = RandomLogits(random, size);
      for (float& x : logits) {
        if (round % 2 == 1) x = std::round(x);  // many ties
        const auto dice = random() % 40;
        if (dice == 0) x = kNan;
        if (dice == 1) x = -kInf;
      }
      std::vector<TokenId> order;
      for (size_t i = 0; i < size; ++i) {
        if (logits[i] > -kInf) order.push_back(static_cast<TokenId>(i));
      }
      std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
      const SampledToken got = Sampler({}, 1, {}).Sample(logits, {});
      ASSERT_EQ(got.token, order.empty() ? 0 : order[0]) << "size " << size;
      if (order.size() > 1) {
        ASSERT_EQ(got.top2_margin, logits[order[0]] - logits[order[1]]);
      }
    }
  }
}

TEST(SamplerTest, TiesGoToTheLowerTokenEvenAcrossChunks) {
  std::vector<float> logits(5000, 0.0F);
  logits[1023] = logits[1024] = logits[4999] = 3.0F;
  EXPECT_EQ(Sampler({}, 1, {}).Sample(logits, {}).token, 1023);
  EXPECT_EQ(Sampler({}, 1, {}).Sample(logits, {}).top2_margin, 0.0F);
  const std::vector<TokenId> banned = {1023};
  EXPECT_EQ(Sampler({}, 1, {}).Sample(logits, banned).token, 1024);
}

TEST(SamplerTest, InfinitiesAndNanNeverPoisonTheChoice) {
  for (const float temperature : {0.0F, 1.0F}) {
    const SamplingParams params{.temperature = temperature};
    const std::vector<float> one = {kNan, -kInf, 2.0F, kNan};
    EXPECT_EQ(Sampler(params, 1, {}).Sample(one, {}).token, 2);
    const std::vector<float> infinite = {5.0F, kInf, 5.0F};
    EXPECT_EQ(Sampler(params, 1, {}).Sample(infinite, {}).token, 1);
    const std::vector<float> nothing = {kNan, -kInf, kNan, -kInf};
    EXPECT_EQ(Sampler(params, 1, {}).Sample(nothing, {}).token, 0);
    const std::vector<TokenId> banned = {0, 1};
    EXPECT_EQ(Sampler(params, 1, {}).Sample(nothing, banned).token, 2) << "the lowest allowed one";
    const std::vector<TokenId> all = {3, 2, 1, 0};
    EXPECT_EQ(Sampler(params, 1, {}).Sample(nothing, all).token, 0) << "must not crash";
    EXPECT_EQ(Sampler(params, 1, {}).Sample(std::vector<float>{1, 2, 3, 4}, all).token, 0);
  }
}

TEST(SamplerTest, BannedTokensAreNeverChosen) {
  std::mt19937_64 random(3);
  const std::vector<TokenId> banned = {4, 2, -1, 1000};  // ids outside of the vocabulary are ignored
  for (int i = 0; i < 500; ++i) {
    std::vector<float> logits = RandomLogits(random, 6);
    logits[4] += 20;
    for (const float temperature : {0.0F, 2.0F}) {
      const TokenId token = Sampler({.temperature = temperature, .top_k = i % 4}, i, {}).Sample(logits, banned).token;
      ASSERT_NE(token, 4);
      ASSERT_NE(token, 2);
    }
  }
}

// --- Random sampling ---

TEST(SamplerTest, FrequenciesFollowTheReferenceDistribution) {
  const uint64_t seed = 99;
  std::mt19937_64 random(seed);
  const std::vector<SamplingParams> settings = {
      {.temperature = 1.0F},
      {.temperature = 0.3F},
      {.temperature = 2.0F},
      {.temperature = 1.0F, .top_k = 1},
      {.temperature = 1.5F, .top_k = 7},
      {.temperature = 1.0F, .top_p = 0.8F},
      {.temperature = 2.0F, .top_p = 0.95F, .top_k = 20},
      {.temperature = 1.0F, .min_p = 0.1F},
      {.temperature = 2.0F, .top_p = 0.9F, .min_p = 0.2F},
      {.temperature = 2.0F, .top_p = 0.99F, .top_k = 30, .min_p = 0.05F},
      {.temperature = 1.0F, .top_p = 1e-6F},
  };
  for (size_t i = 0; i < settings.size(); ++i) {
    SCOPED_TRACE("setting " + std::to_string(i));
    const std::vector<float> logits = RandomLogits(random, 60, 6.0F);
    ExpectDistribution(logits, settings[i], Distribution(Adjusted(logits, {}, {}, {}), settings[i]), seed + i);
  }
}

TEST(SamplerTest, RandomSettingsStayInsideTheReferenceSupport) {
  const uint64_t seed = 4711;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 400; ++round) {
    const size_t size = 1 + random() % 3000;
    const float spread = std::vector<float>{0.1F, 5.0F, 40.0F}[random() % 3];
    const std::vector<float> logits = RandomLogits(random, size, spread);
    SamplingParams params{.temperature = 0.05F + static_cast<float>(random() % 200) / 100.0F};
    if (random() % 2 == 0) params.top_p = 0.01F + static_cast<float>(random() % 98) / 100.0F;
    if (random() % 2 == 0) params.top_k = static_cast<int>(random() % (size + 1));
    if (random() % 2 == 0) params.min_p = static_cast<float>(random() % 100) / 100.0F;
    SamplingParams wider = params;  // rounding may move the border of the nucleus and of min-p by a token
    if (wider.top_p < 1) wider.top_p += 1e-5F;
    wider.min_p *= 0.99999F;
    const auto allowed = Distribution(Adjusted(logits, {}, {}, {}), wider);
    Sampler sampler(params, random(), {});
    for (int draw = 0; draw < 15; ++draw) {
      const TokenId token = sampler.Sample(logits, {}).token;
      ASSERT_TRUE(allowed.contains(token)) << "round " << round << " token " << token << " size " << size << " k "
                                           << params.top_k << " p " << params.top_p << " min_p " << params.min_p;
    }
  }
}

TEST(SamplerTest, EqualLogitsKeepTheLowestIds) {
  const std::vector<float> flat(4000, 1.0F);
  Sampler top_k({.temperature = 1.0F, .top_k = 3}, 5, {});
  Sampler top_p({.temperature = 1.0F, .top_p = 0.25F}, 5, {});
  std::set<TokenId> by_k;
  TokenId highest = 0;
  for (int i = 0; i < 3000; ++i) {
    by_k.insert(top_k.Sample(flat, {}).token);
    highest = std::max(highest, top_p.Sample(flat, {}).token);
  }
  EXPECT_THAT(by_k, ElementsAre(0, 1, 2));
  EXPECT_LT(highest, 1000);
  EXPECT_GT(highest, 980) << "the whole nucleus is used";
}

TEST(SamplerTest, ATinyTemperatureIsGreedy) {
  const std::vector<float> logits = {1.0F, 1.5F, -kInf, 1.4F};
  for (const float t : {1e-3F, 1e-20F, 1e-44F})
    EXPECT_EQ(Sampler({.temperature = t}, 1, {}).Sample(logits, {}).token, 1);
}

TEST(SamplerTest, TheSameSeedGivesTheSameTokens) {
  std::mt19937_64 random(8);
  const std::vector<float> logits = RandomLogits(random, 500, 8.0F);
  const SamplingParams params{.temperature = 1.2F, .top_p = 0.9F};
  const auto draw = [&](uint64_t seed) {
    Sampler sampler(params, seed, {});
    std::vector<TokenId> tokens;
    for (int i = 0; i < 100; ++i) tokens.push_back(sampler.Sample(logits, {}).token);
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(SamplerTest, GoldenTokensHoldOnEveryMachine) {
  std::vector<float> logits;
  for (int i = 0; i < 1000; ++i) logits.push_back(static_cast<float>((i * 7919) % 1000) / 100.0F);
  const auto draw = [&](const SamplingParams& params) {
    Sampler sampler(params, 42, {});
    std::vector<TokenId> tokens;
    for (int i = 0; i < 6; ++i) tokens.push_back(sampler.Sample(logits, {}).token);
    return tokens;
  };
  EXPECT_THAT(draw({.temperature = 1.0F}), ElementsAre(741, 173, 284, 338, 39, 877));
  EXPECT_THAT(draw({.temperature = 1.0F, .top_k = 50}), ElementsAre(766, 173, 284, 346, 62, 877));
  EXPECT_THAT(draw({.temperature = 0.7F, .top_p = 0.9F, .min_p = 0.01F}), ElementsAre(741, 173, 284, 335, 50, 877));
}

// --- Penalties ---

TEST(SamplerTest, GreedyWithPenaltiesMatchesTheReference) {
  const uint64_t seed = 31;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    const size_t size = 5 + random() % 40;
    SamplingParams params;
    if (random() % 2 == 0) params.repetition_penalty = 0.5F + static_cast<float>(random() % 150) / 100.0F;
    if (random() % 2 == 0) params.presence_penalty = static_cast<float>(random() % 400) / 100.0F - 2.0F;
    if (random() % 2 == 0) params.frequency_penalty = static_cast<float>(random() % 400) / 100.0F - 2.0F;
    std::vector<TokenId> prompt;
    for (size_t i = 0; i < size / 3; ++i) prompt.push_back(static_cast<TokenId>(random() % size));
    Sampler sampler(params, 1, prompt);
    std::vector<TokenId> output;
    for (int step = 0; step < 40; ++step) {
      const std::vector<float> logits = RandomLogits(random, size, 4.0F);
      const std::vector<double> want = Adjusted(logits, params, prompt, output);
      const TokenId got = sampler.Sample(logits, {}).token;
      ASSERT_NEAR(want[got], *std::max_element(want.begin(), want.end()), 1e-4) << "round " << round;
      output.push_back(got);
    }
  }
}

TEST(SamplerTest, PresenceAndFrequencyLookAtTheOutputOnly) {
  const std::vector<TokenId> prompt = {0, 0, 0, -5, 77};  // ids outside of the vocabulary are ignored
  const std::vector<float> logits = {1.0F, 0.9F};
  Sampler sampler({.presence_penalty = 0.05F, .frequency_penalty = 0.04F}, 1, prompt);
  EXPECT_EQ(sampler.Sample(logits, {}).token, 0);
  EXPECT_EQ(sampler.Sample(logits, {}).token, 0) << "1 - 0.09 is still ahead";
  EXPECT_EQ(sampler.Sample(logits, {}).token, 1) << "1 - 0.13 is not";
  Sampler repetition({.repetition_penalty = 1.2F}, 1, prompt);
  EXPECT_EQ(repetition.Sample(logits, {}).token, 1) << "over the prompt too";
  const std::vector<float> negative = {-1.0F, -1.1F};
  EXPECT_EQ(Sampler({.repetition_penalty = 1.2F}, 1, prompt).Sample(negative, {}).token, 1);
}

// --- Log probabilities ---

TEST(SamplerTest, LogprobsAreOfTheRawDistribution) {
  std::mt19937_64 random(12);
  for (const size_t size : {1, 15, 16, 17, 700}) {
    std::vector<float> logits = RandomLogits(random, size, 12.0F);
    if (size > 20) logits[3] = kNan;
    double sum = 0;
    for (const float x : logits) sum += std::isnan(x) ? 0 : std::exp(static_cast<double>(x));
    const SamplingParams params{.temperature = 0.5F, .presence_penalty = 1.0F, .logprobs = 5};
    Sampler sampler(params, 9, {});
    for (int i = 0; i < 20; ++i) {
      const SampledToken got = sampler.Sample(logits, {});
      EXPECT_NEAR(got.logprob, logits[got.token] - std::log(sum), 1e-4);
      ASSERT_EQ(got.top.size(), std::min<size_t>(5, size));
      for (size_t j = 0; j < got.top.size(); ++j) {
        EXPECT_NEAR(got.top[j].logprob, logits[got.top[j].token] - std::log(sum), 1e-4);
        EXPECT_TRUE(j == 0 || got.top[j - 1].logprob >= got.top[j].logprob);
      }
      EXPECT_EQ(got.top[0].token, Sampler({}, 1, {}).Sample(logits, {}).token);
    }
  }
}

TEST(SamplerTest, LogprobsOnlyWhenAskedFor) {
  const std::vector<float> logits = {0.0F, 1.0F};
  EXPECT_EQ(Sampler({}, 1, {}).Sample(logits, {}).logprob, 0.0F);
  const SampledToken chosen = Sampler({.want_logprobs = true}, 1, {}).Sample(logits, {});
  EXPECT_NEAR(chosen.logprob, -0.313262, 1e-5);
  EXPECT_TRUE(chosen.top.empty());
  const std::vector<float> nothing = {kNan, kNan};
  EXPECT_EQ(Sampler({.logprobs = 3}, 1, {}).Sample(nothing, {}).logprob, -kInf);
}

TEST(SamplerTest, SamplersMoveWithTheirState) {
  std::mt19937_64 random(8);
  const std::vector<float> logits = RandomLogits(random, 50, 4.0F);
  Sampler a({.temperature = 1.0F}, 3, {});
  Sampler b({.temperature = 1.0F}, 3, {});
  for (int i = 0; i < 10; ++i) ASSERT_EQ(a.Sample(logits, {}).token, b.Sample(logits, {}).token);
  Sampler moved = std::move(a);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(moved.Sample(logits, {}).token, b.Sample(logits, {}).token);
}

}  // namespace
}  // namespace sluice::engine
