// An EngineCore on the synthetic backend under a manual clock, driven step by step.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/metrics.h"
#include "engine/backend/synthetic_backend.h"
#include "engine/pipelines/pipelines.h"
#include "engine/scheduler/engine_core.h"
#include "tests/support/manual_clock.h"

namespace sluice::engine {

struct CoreHarness {
  explicit CoreHarness(SyntheticOptions backend_options = {}, SchedulerOptions scheduler_options = {})
      : backend(backend_options, [this](Duration d) { clock.Advance(d); }),
        options(std::move(scheduler_options)),
        metrics(registry),
        probe(metrics, "m"),
        core(backend, options, clock, probe) {}

  struct Client {
    std::shared_ptr<TokenStream> stream;
    std::vector<TokenId> tokens;
    std::string text;
    bool finished = false;
    GenerationSummary summary;

    void Read() {
      TokenStream::Batch batch = stream->Take();
      for (TokenEvent& e : batch.tokens) {
        tokens.push_back(e.sampled.token);
        text += e.text;
      }
      if (batch.finished && !finished) {
        finished = true;
        text += batch.tail_text;
        summary = batch.summary;
      }
    }
  };

  Generation Make(const std::string& prompt, int max_tokens, PipelinePolicy policy = BaselinePolicy()) {
    return {.request_id = prompt,
            .prompt = *backend.tokenizer().Tokenize(prompt, false, false),
            .max_tokens = max_tokens,
            .submitted = clock.Now(),
            .policy = std::move(policy)};
  }

  Client Submit(Generation g, size_t buffer = 256) {
    auto stream = std::make_shared<TokenStream>(buffer);
    core.Enqueue(std::move(g), stream);
    return {.stream = stream};
  }

  // Steps until `client` finished; false when it did not within `max_steps`.
  bool Finish(Client& client, int max_steps = 10000) {
    for (int i = 0; i < max_steps && !client.finished; ++i) {
      core.Step();
      client.Read();
    }
    return client.finished;
  }

  test::ManualClock clock;
  SyntheticBackend backend;
  SchedulerOptions options;
  MetricsRegistry registry;
  EngineMetrics metrics;
  SchedulerProbe probe;
  EngineCore core;
};

// What a prompt alone in an engine of its own says.
inline std::vector<TokenId> Alone(const std::string& prompt, int max_tokens, SyntheticOptions options = {}) {
  CoreHarness harness(options);
  auto client = harness.Submit(harness.Make(prompt, max_tokens));
  harness.Finish(client);
  return client.tokens;
}

}  // namespace sluice::engine
