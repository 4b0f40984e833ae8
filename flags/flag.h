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
#include "flags/rule.h"
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
  kSchedule,             // before its start or after its end
};
std::string_view ReasonName(Reason reason);  // "SPLIT", "STATIC", "DISABLED", ...

// The flags that every request asks for.
inline constexpr std::string_view kPhase5 = "phase5";  // master gate over the other two
inline constexpr std::string_view kTtftPipeline = "ttft_pipeline";
inline constexpr std::string_view kQosPolicy = "qos_policy";

// One of the values that a flag can take.
struct Variant {
  std::string name;                             // "on", "off", "treatment-b"
  std::shared_ptr<const nlohmann::json> value;  // not null: bool, number, string or object
  uint32_t weight = 0;  // share of the keys that are in, relative to the other variants' weights
};

class Targeting;

// Who is in a child: keys of the parent and of its own percentage. kProduct: by hashes of their own, 10 % of 10 % is
// 1 %. kNested: by the parent's salt and hash_version, so the same keys come first in both and the smaller share holds.
enum class ParentShare { kProduct, kNested };

// Inclusive start, exclusive end; nullopt: open.
struct Schedule {
  std::optional<WallTime> start, end;
  bool Contains(WallTime now) const { return (!start || now >= *start) && (!end || now < *end); }
};

std::string TimeText(WallTime time);  // RFC 3339 in UTC: "2026-01-31T23:59:59Z", with nanoseconds unless they are 0

struct Flag {
  std::string key;
  bool enabled = false;
  RolloutBps rollout_bps = 0;
  std::string salt;            // YAML: hash_seed. Default: the key (nested: the parent's). Makes flags independent.
  int hash_version = 2;        // 1: the ancestor's 100 buckets, so whole percents only; 2: 10000 buckets. See bucket.h
  bool dry_run = false;        // decide and log, but behave as if out (qos_policy: policies act only in the log)
  std::string parent;          // key of the master gate ("phase5"), or empty
  Layer layer = Layer::kFile;  // who set `enabled`
  Layer rollout_layer = Layer::kFile;    // who set `rollout_bps`
  std::map<std::string, bool> features;  // sub-switches: warmup_queue, speculation, kv_prep
  std::vector<Variant> variants;         // empty: on and off
  // Picks the variant by a program of its own; the percentage above is then inert. Its variants are its own.
  std::shared_ptr<const Targeting> targeting;
  ParentShare parent_share = ParentShare::kProduct;
  Schedule schedule;                          // outside: out
  std::shared_ptr<const KeySet> allow, deny;  // targeting keys that are in or out at any percentage; deny wins
  std::vector<Rule> rules;                    // the first that matches decides
  Layer definition_layer = Layer::kFile;      // who gave everything but `enabled` and `rollout_bps`
};

// The first bucket that a percentage leaves out, in buckets of the hash version.
inline uint32_t SplitThreshold(int hash_version, RolloutBps bps) { return hash_version == 1 ? bps / 100 : bps; }

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
  uint32_t sample = 0;     // more bits of the hash, independent of the bucket; 0: nothing was hashed
  uint64_t epoch = 0;      // of the configuration that decided
};

// Text of clients and remote sources as logs, trailers and explanations show it: at most 128 bytes of printable ASCII;
// other bytes and ';' become '?'.
std::string Shown(std::string_view text);

// A value that a higher layer pins.
struct InertValue {
  std::string flag, field;  // "rollout_percentage"; "definition" for all of a file's or remote flag
  Layer layer;
  std::string value;
  Layer held_by;    // the same layer when nobody holds it: there is no such flag
  std::string why;  // "env PHASE5_ROLLOUT_PERCENT holds 10 %"
};
// "override rollout_percentage 50 % of phase5 is inert: env PHASE5_ROLLOUT_PERCENT holds 10 %"
std::string Describe(const InertValue& inert);

// "ttft_pipeline=on;reason=SPLIT;bucket=1234;threshold=5000;layer=file;epoch=3" — the trailer and log form.
// Without bucket and threshold when nothing was hashed; ";dry_run=true" follows when it is one.
std::string Explain(const Decision& decision);

}  // namespace sluice::flags
