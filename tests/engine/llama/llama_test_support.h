// A small backend on the test model, and greedy decoding that tolerates what libllama cannot promise: its kernels
// change with the batch, so two computations of the same tokens differ in the last bits, and a near tie may flip.
#pragma once

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/llama/llama_backend.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace sluice::engine::test {

inline constexpr float kTieMargin = 0.3F;  // logits

inline std::string TestModelPath() {
  const char* path = std::getenv("SLUICE_TEST_MODEL");
  return path == nullptr ? "" : path;
}

struct Generated {
  std::vector<TokenId> tokens;
  std::vector<float> margins;  // best logit minus the second, by token
};

class LlamaTest : public testing::Test {
 protected:
  static constexpr KvGeometry kGeometry = {.slots = 4, .slot_context = 256};

  void SetUp() override {
    ASSERT_NE(TestModelPath(), "") << "SLUICE_TEST_MODEL is not set: run these tests through scripts/test";
    LlamaOptions options;
    options.path = TestModelPath();
    options.geometry = kGeometry;
    options.threads = 1;  // libllama's threads spin for each other: with two, a busy machine makes a step take seconds
    options.max_batch_tokens = 128;
    options.embedding_context = 64;
    auto loaded = LoadLlamaBackend(options);
    ASSERT_THAT(loaded, sluice::test::IsOk());
    backend_ = *std::move(loaded);
  }

  std::vector<TokenId> Tokens(const std::string& text) {
    return backend_->tokenizer().Tokenize(text, /*add_special=*/true, /*parse_special=*/false).value();
  }

  std::string Text(const std::vector<TokenId>& tokens) {
    std::string text;
    for (TokenId token : tokens) text += backend_->tokenizer().Piece(token, false);
    return text;
  }

  static void Append(std::vector<BatchRow>& rows, SequenceId sequence, int position,
                     const std::vector<TokenId>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      rows.push_back({tokens[i], position + static_cast<int>(i), sequence, i + 1 == tokens.size()});
    }
  }

  // Appends `tokens` to `sequence`, at most `chunk` a step; the last row's logits stay readable.
  void Feed(SequenceId sequence, int position, const std::vector<TokenId>& tokens, size_t chunk = 128) {
    for (size_t i = 0; i < tokens.size(); i += chunk) {
      const size_t end = std::min(tokens.size(), i + chunk);
      std::vector<BatchRow> rows;
      Append(rows, sequence, position + static_cast<int>(i),
             {tokens.begin() + static_cast<long>(i), tokens.begin() + static_cast<long>(end)});
      ASSERT_THAT(backend_->Decode(rows), sluice::test::IsOk());
      last_row_ = static_cast<int>(rows.size()) - 1;
    }
  }

  static std::pair<TokenId, float> Best(std::span<const float> logits) {
    size_t best = 0;
    for (size_t i = 1; i < logits.size(); ++i) best = logits[i] > logits[best] ? i : best;
    float second = -1e30F;
    for (size_t i = 0; i < logits.size(); ++i) second = i == best ? second : std::max(second, logits[i]);
    return {static_cast<TokenId>(best), logits[best] - second};
  }

  // Feeds `tokens`, then `count` greedy tokens.
  Generated Continue(SequenceId sequence, int position, const std::vector<TokenId>& tokens, int count,
                     size_t chunk = 128) {
    Generated out;
    Feed(sequence, position, tokens, chunk);
    position += static_cast<int>(tokens.size());
    while (!HasFatalFailure()) {
      const auto [token, margin] = Best(backend_->Logits(last_row_));
      out.tokens.push_back(token);
      out.margins.push_back(margin);
      if (static_cast<int>(out.tokens.size()) == count) break;
      Feed(sequence, position++, {token});
    }
    return out;
  }

  // Equal up to a first divergence at a near tie.
  void ExpectSame(const Generated& a, const Generated& b) {
    ASSERT_EQ(a.tokens.size(), b.tokens.size());
    for (size_t i = 0; i < a.tokens.size(); ++i) {
      if (a.tokens[i] == b.tokens[i]) continue;
      std::cout << "diverges at token " << i << ", margins " << a.margins[i] << " and " << b.margins[i] << "\n";
      EXPECT_LT(std::min(a.margins[i], b.margins[i]), kTieMargin)
          << "'" << Text(a.tokens) << "' and '" << Text(b.tokens) << "'";
      EXPECT_GT(i, 0u) << "the very first token differs";
      return;
    }
  }

  const std::string capital_ = "The capital of France is";
  const std::string story_ =
      "Once upon a time, in a village at the foot of a tall mountain, there lived an old clockmaker who repaired "
      "every clock for miles around. One winter evening a stranger knocked on the door and";

  std::unique_ptr<Backend> backend_;
  int last_row_ = 0;
};

}  // namespace sluice::engine::test
