// The one writer of a FlagGate: keeps what each layer says, and puts the merge of all of them into use.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "flags/explanation.h"
#include "flags/flag_changes.h"
#include "flags/flag_gate.h"
#include "flags/layers.h"

namespace sluice::flags {

// One attempt to change a layer.
struct FlagUpdate {
  Layer layer;                      // that was given anew
  std::string cause;                // "SIGHUP", "alice: too many errors"
  uint64_t epoch = 0;               // in use now
  absl::Status status;              // not OK: everything stays as it was
  std::vector<FlagChange> changes;  // what now decides differently; empty: nothing, and the epoch stayed
};

// Thread-safety: thread-safe; writers wait for each other.
class FlagSources {
 public:
  // Runs on the writer's thread, one call at a time, after a changed set is in use or was refused. It must not call
  // back. Not called when nothing changes.
  using Listener = std::function<void(const FlagUpdate&)>;

  // `gate` outlives this, holds FlagSet::Create(MergeLayers(initial)), and is changed by nobody else.
  FlagSources(FlagGate& gate, Layers initial, Listener listener);

  // Gives a layer anew, as a whole. The merge of all layers is validated as a whole (FlagSet::Create), takes epoch + 1
  // and is swapped in; on any error the last good set and the layer's last good content stay, and
  // sluice_flag_reloads_total{result="failed"} counts it. What changes nothing makes no new epoch.
  // ABORTED: `expected_epoch` is given and is not the one in use (somebody was faster); neither counted nor told.
  // INVALID_ARGUMENT: a fault of the merged set, or definitions in a layer that brings only values.
  absl::Status SetLayer(Layer layer, LayerContent content, std::string cause,
                        std::optional<uint64_t> expected_epoch = std::nullopt) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Clear(Layer layer, std::string cause, std::optional<uint64_t> expected_epoch = std::nullopt);

  // Replaces what the layer says about one flag; the layer's other content stays. Empty values take it back. Also
  // NOT_FOUND: no layer defines the flag.
  absl::Status SetValues(Layer layer, const std::string& flag, FlagValues values, std::string cause,
                         std::optional<uint64_t> expected_epoch = std::nullopt) ABSL_LOCKS_EXCLUDED(mu_);

  // A stale layer (its source is out of reach) keeps its last good content and is shown as stale. SetLayer ends that.
  void MarkStale(Layer layer, bool stale) ABSL_LOCKS_EXCLUDED(mu_);

  struct LayerState {
    LayerContent content;
    std::string cause;  // of the last change
    bool stale = false;
  };
  std::map<Layer, LayerState> layers() const ABSL_LOCKS_EXCLUDED(mu_);

  // FlagSet::ExplainFor of the set in use, with the stale layers.
  Explanation Explain(std::string_view flag, const EvaluationContext& context) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status Apply(Layer layer, std::map<Layer, LayerState> next, const std::string& cause,
                     std::optional<uint64_t> expected_epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  FlagGate& gate_;
  const Listener listener_;
  mutable Mutex mu_;
  std::map<Layer, LayerState> layers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sluice::flags
