// One generation inside the engine: what it asked, where its KV is, what it said so far.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/sampling/output_text.h"
#include "engine/sampling/sampler.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/token_stream.h"

namespace sluice::engine {

// Thread-safety: engine thread only. States: waiting (slot < 0) → prefilling → decoding → gone.
struct Sequence {
  Sequence(Generation g, std::shared_ptr<TokenStream> s, uint64_t arrival_order, uint64_t seed)
      : request(std::move(g)),
        stream(std::move(s)),
        order(arrival_order),
        tokens(request.prompt),
        sampler(request.sampling, seed, request.prompt),
        text(request.stop_strings) {}

  int prompt_size() const { return static_cast<int>(request.prompt.size()); }
  int output_size() const { return static_cast<int>(tokens.size()) - prompt_size(); }
  int uncomputed() const { return static_cast<int>(tokens.size()) - computed; }
  bool waiting() const { return slot < 0; }
  bool prefilling() const { return slot >= 0 && output_size() == 0; }
  bool decoding() const { return slot >= 0 && output_size() > 0; }

  const Generation request;
  const std::shared_ptr<TokenStream> stream;
  const uint64_t order;
  int policy = 0;  // index into the core's policies

  SequenceId slot = -1;
  int computed = 0;             // tokens whose KV is in the slot
  int cached = 0;               // of these, taken from another sequence
  std::vector<TokenId> tokens;  // prompt, then output
  Sampler sampler;
  OutputText text;
  std::string stop_string;
  float min_top2_margin = 0;

  MonoTime first_scheduled{};
  MonoTime first_token{};
  MonoTime last_token{};
  Duration longest_gap{};                   // between two tokens, but for those that a slow reader caused
  bool was_paused = false;                  // by a slow reader, since the last token
  MonoTime paused_since = kInfiniteFuture;  // its stream is full since then
  bool finished = false;                    // its stream was told; to be erased
};

}  // namespace sluice::engine
