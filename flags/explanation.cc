#include "flags/explanation.h"

#include "fmt/format.h"

namespace sluice::flags {
namespace {

void AppendDraw(std::string_view what, const std::optional<DrawTrace>& draw, std::string* out) {
  if (!draw) return;
  *out += fmt::format("\n  {}: salt \"{}\", hash_version {}, hash {}, bucket {}, threshold {}", what, draw->salt,
                      draw->hash_version, draw->hash, draw->bucket, draw->threshold);
}

}  // namespace

std::string Explanation::Text() const {
  std::string out = Explain(decision);
  if (decision.reason == Reason::kUnknownFlag) return out;
  out += fmt::format("\n  layers: definition {}, {} by {}, {} by {}", LayerName(definition_layer),
                     enabled ? "enabled" : "disabled", LayerName(enabled_layer), PercentText(rollout_bps),
                     LayerName(rollout_layer));
  for (const InertValue& value : inert) out += "\n  " + Describe(value);
  for (const std::string& layer : stale) out += fmt::format("\n  stale: {}, the last known state is used", layer);
  if (!schedule.empty()) out += "\n  schedule: " + schedule;
  if (!lists.empty()) out += "\n  lists: " + lists;
  for (const RuleTrace& rule : rules) {
    out += fmt::format("\n  rule {}: {}: {}", rule.name, rule.matched ? "matched" : "no match", rule.why);
  }
  AppendDraw("percentage", split, &out);
  AppendDraw("variants", variant, &out);
  if (!program_error.empty()) out += "\n  error: " + program_error;
  for (const Explanation& parent : parents) out += "\nparent " + parent.Text();
  return out;
}

}  // namespace sluice::flags
