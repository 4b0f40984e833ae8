// From logits to text to the reader, one token at a time.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampling/output_text.h"
#include "engine/sampling/sampler.h"
#include "engine/sampling/sampling_math.h"
#include "engine/scheduler/token_stream.h"
#include "loadtest/components/measure.h"

namespace sluice::components {
namespace {

using namespace engine;  // NOLINT: the subject

constexpr int kVocabulary = 49152;  // SmolLM2's
constexpr int kRows = 8;

// Rows of a bell curve (the sum of four uniform draws, standard deviation 2.3) with a few candidates above it: about as
// flat as a small model's logits in the middle of a sentence. Fixed seed.
const std::vector<std::vector<float>>& Logits() {
  static const auto rows = [] {
    SplitMix64 random(20260101);
    std::vector<std::vector<float>> made(kRows, std::vector<float>(kVocabulary));
    for (auto& row : made) {
      for (float& x : row) {
        for (int i = 0; i < 4; ++i) x += static_cast<float>(random.NextDouble() * 4 - 2);
      }
      for (int i = 0; i < 20; ++i) row[random.Next() % kVocabulary] += static_cast<float>(16 - i / 2);
    }
    return made;
  }();
  return rows;
}

void Sample(benchmark::State& state, const SamplingParams& params, const std::vector<TokenId>& banned = {}) {
  const auto& rows = Logits();
  Sampler sampler(params, /*seed=*/1, {});
  size_t next = 0;
  Measure(state, [&] { benchmark::DoNotOptimize(sampler.Sample(rows[next++ % kRows], banned)); });
}
BENCHMARK_CAPTURE(Sample, greedy, SamplingParams{})->Name("sampling/greedy");
BENCHMARK_CAPTURE(Sample, ignore_eos, SamplingParams{}, {0, 2})->Name("sampling/greedy_ignore_eos");
BENCHMARK_CAPTURE(Sample, top_k, SamplingParams{.temperature = 0.8F, .top_k = 40})->Name("sampling/top_k_40");
BENCHMARK_CAPTURE(Sample, top_p, SamplingParams{.temperature = 0.8F, .top_p = 0.95F})->Name("sampling/top_p_0.95");
BENCHMARK_CAPTURE(Sample, min_p, SamplingParams{.temperature = 0.8F, .min_p = 0.05F})->Name("sampling/min_p_0.05");
BENCHMARK_CAPTURE(Sample, defaults, SamplingParams{.temperature = 0.8F, .top_p = 0.95F, .top_k = 40, .min_p = 0.05F})
    ->Name("sampling/api_defaults");

using Pieces = std::vector<std::string_view>;
const Pieces kWords = {" the", " tide", " rises", " twice", " a", " day", ",", " mostly"};
const Pieces kHalves = {"\xC3", "\xA9", "\xE2\x82", "\xAC", "\xF0\x9F", "\x98", "\x80", " ok"};  // é € 😀, cut
const std::vector<std::string> kStops = {"\n\n", "<|im_end|>", "User:", " the end"};

void Text(benchmark::State& state, const Pieces& pieces, const std::vector<std::string>& stops) {
  OutputText text(stops);
  size_t next = 0;
  Measure(state, [&] { benchmark::DoNotOptimize(text.Append(pieces[next++ % pieces.size()])); });
}
BENCHMARK_CAPTURE(Text, words, kWords, {})->Name("text/words");
BENCHMARK_CAPTURE(Text, utf8, kHalves, {})->Name("text/split_utf8");
BENCHMARK_CAPTURE(Text, stops, kWords, kStops)->Name("text/4_stop_strings");

// One token through the channel between engine and reader, who asks to be told.
void PushTake(benchmark::State& state) {
  TokenStream stream(256);
  Measure(state, [&] {
    stream.NotifyWhenReady([&stream] { benchmark::DoNotOptimize(stream.Take()); });
    stream.Push({.sampled = {.token = 300}, .text = " tide"});
  });
}
BENCHMARK(PushTake)->Name("stream/push_take");

}  // namespace
}  // namespace sluice::components
