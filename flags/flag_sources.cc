#include "flags/flag_sources.h"

#include <memory>
#include <utility>

#include "base/status.h"
#include "fmt/format.h"

namespace sluice::flags {

FlagSources::FlagSources(FlagGate& gate, Layers initial, Listener listener)
    : gate_(gate), listener_(std::move(listener)) {
  for (auto& [layer, content] : initial) layers_[layer] = {.content = std::move(content), .cause = "start"};
}

absl::Status FlagSources::SetLayer(Layer layer, LayerContent content, std::string cause,
                                   std::optional<uint64_t> expected_epoch) {
  MutexLock lock(mu_);
  std::map<Layer, LayerState> next = layers_;
  next[layer] = {.content = std::move(content), .cause = cause};
  return Apply(layer, std::move(next), cause, expected_epoch);
}

absl::Status FlagSources::Clear(Layer layer, std::string cause, std::optional<uint64_t> expected_epoch) {
  return SetLayer(layer, {}, std::move(cause), expected_epoch);
}

absl::Status FlagSources::SetValues(Layer layer, const std::string& flag, FlagValues values, std::string cause,
                                    std::optional<uint64_t> expected_epoch) {
  MutexLock lock(mu_);
  const bool empty = !values.enabled && !values.rollout_bps;
  if (!empty && gate_.snapshot()->Find(flag) == nullptr) {
    return absl::NotFoundError(fmt::format("no flag is called \"{}\"", flag));
  }
  std::map<Layer, LayerState> next = layers_;
  LayerState& state = next[layer];
  if (empty) {
    state.content.values.erase(flag);
  } else {
    state.content.values[flag] = std::move(values);
  }
  state.cause = cause;
  return Apply(layer, std::move(next), cause, expected_epoch);
}

absl::Status FlagSources::Apply(Layer layer, std::map<Layer, LayerState> next, const std::string& cause,
                                std::optional<uint64_t> expected_epoch) {
  const std::shared_ptr<const FlagSet> current = gate_.snapshot();
  FlagUpdate update{.layer = layer, .cause = cause, .epoch = current->epoch()};
  const auto refuse = [&](absl::Status status) {
    gate_.CountFailedReload();
    update.status = status;
    if (listener_) listener_(update);
    return status;
  };
  if (expected_epoch && *expected_epoch != update.epoch) {
    return absl::AbortedError(
        fmt::format("the flags are at epoch {}, not at the expected {}", update.epoch, *expected_epoch));
  }
  if (layer > Layer::kRemote && !next[layer].content.flags.empty()) {
    return refuse(absl::InvalidArgumentError(fmt::format("the layer {} cannot define flags", LayerName(layer))));
  }
  Layers contents;
  for (const auto& [of, state] : next) contents[of] = state.content;
  auto set = FlagSet::Create(MergeLayers(contents), update.epoch + 1);
  if (!set.ok()) return refuse(set.status());
  update.changes = FindChanges(current->spec(), (*set)->spec());
  layers_ = std::move(next);
  if (update.changes.empty()) return absl::OkStatus();
  gate_.Swap(*std::move(set));
  ++update.epoch;
  if (listener_) listener_(update);
  return absl::OkStatus();
}

void FlagSources::MarkStale(Layer layer, bool stale) {
  MutexLock lock(mu_);
  layers_[layer].stale = stale;
}

std::map<Layer, FlagSources::LayerState> FlagSources::layers() const {
  MutexLock lock(mu_);
  return layers_;
}

Explanation FlagSources::Explain(std::string_view flag, const EvaluationContext& context) const {
  MutexLock lock(mu_);
  Explanation out = gate_.snapshot()->ExplainFor(flag, context);
  for (const auto& [layer, state] : layers_) {
    if (state.stale) out.stale.emplace_back(LayerName(layer));
  }
  return out;
}

}  // namespace sluice::flags
