// Value types of the feature-flag gate. Semantics: flags/README.md and docs/configuration.md.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "nlohmann/json_fwd.hpp"

namespace sluice::flags {

// Who decided. Higher beats lower; a lower layer pinned by a higher one is shown as inert.
enum class Layer { kDefault, kFile, kRemote, kRolloutStage, kOverride, kEnv, kRollback, kEmergency };
std::string_view LayerName(Layer layer);  // "default", "file", ..., "emergency"

// Why. Names follow OpenFeature's reasons where it has one.
enum class Reason {
  kSplit,                // bucket compared with the percentage
  kStatic,               // 0 %: nobody, 100 %: everybody
  kDisabled,             // the flag, or its parent, is off
  kParentOut,            // the parent flag's percentage leaves this key out
  kTargetingKeyMissing,  // nothing to hash: out
  kEmergency,            // kill switch or rollback_to_baseline
  kUnknownFlag,          // no such flag
  kTargetingMatch,       // a rule, or the allow or deny list, decided
  kDefault,              // targeting was asked and left it to the default variant
  kError,                // the definition could not be evaluated: out, or the code's default
};
std::string_view ReasonName(Reason reason);  // "SPLIT", "STATIC", "DISABLED", ...

inline constexpr uint32_t kBuckets = 10000;

// The flags that every request asks for.
inline constexpr std::string_view kPhase5 = "phase5";  // master gate over the other two
inline constexpr std::string_view kTtftPipeline = "ttft_pipeline";
inline constexpr std::string_view kQosPolicy = "qos_policy";

// Rollout share in 0.01 % steps: 0..10000. YAML writes percent with up to two decimals.
using RolloutBps = uint32_t;

// One of the values that a flag can take.
struct Variant {
  std::string name;                             // "on", "off", "treatment-b"
  std::shared_ptr<const nlohmann::json> value;  // not null: bool, number, string or object
  uint32_t weight = 0;  // share of the keys that are in, relative to the other variants' weights
};

class Targeting;

struct Flag {
  std::string key;
  bool enabled = false;
  RolloutBps rollout_bps = 0;
  std::string salt;            // YAML: hash_seed. Default: the key. Makes buckets of flags independent.
  int hash_version = 2;        // 1: the ancestor's 100 buckets, so whole percents only; 2: 10000 buckets. See bucket.h
  bool dry_run = false;        // decide and log, but behave as if out (qos_policy: policies act only in the log)
  std::string parent;          // key of the master gate ("phase5"), or empty
  Layer layer = Layer::kFile;  // who set `enabled`
  Layer rollout_layer = Layer::kFile;    // who set `rollout_bps`
  std::map<std::string, bool> features;  // sub-switches: warmup_queue, speculation, kv_prep
  std::vector<Variant> variants;         // empty: on and off
  // Picks the variant by a program of its own; the percentage above is then inert. Its variants are its own.
  std::shared_ptr<const Targeting> targeting;
};

// The request's headers, as rules see them. Thread-safety: immutable during the evaluation.
class HeaderSource {
 public:
  virtual ~HeaderSource() = default;
  // The first value of header `name` (lower case); empty when absent.
  virtual std::string_view Header(std::string_view name) const = 0;
};

// Everything that one evaluation may look at. Views and pointers: valid for the call only.
struct EvaluationContext {
  std::string_view targeting_key;  // user, else conversation, else request id; chosen by the caller
  std::string_view tenant, user, model, qos_class;
  const HeaderSource* headers = nullptr;       // null: no headers
  const nlohmann::json* attributes = nullptr;  // an object: what an OpenFeature client sent, whole; null: the above
  WallTime now{};                              // for schedules and `$flagd.timestamp`
};

// Frozen for a request's life. Its views and `variant_value` point into the FlagSet (`flag` of an unknown flag: at the
// name asked for), so keep the snapshot alive while using it.
struct Decision {
  std::string_view flag;
  bool in = false;                   // the request gets the feature
  bool dry_run = false;              // in, but only the log may notice (the flag or one of its parents is in dry_run)
  std::string_view variant = "off";  // "on" | "off", or the name of *variant_value
  const Variant* variant_value = nullptr;  // null: the flag has no variants, or the default in the caller's code holds
  Reason reason = Reason::kUnknownFlag;
  Layer layer = Layer::kDefault;
  int32_t bucket = -1;     // 0..9999 (hash_version 1: 0..99); -1: nothing was hashed; kParentOut: the parent's
  uint32_t threshold = 0;  // in when bucket < threshold
  uint64_t epoch = 0;      // of the configuration that decided
};

// "ttft_pipeline=on;reason=SPLIT;bucket=1234;threshold=5000;layer=file;epoch=3" — the trailer and log form.
// Without bucket and threshold when nothing was hashed; ";dry_run=true" follows when it is one.
std::string Explain(const Decision& decision);

}  // namespace sluice::flags
