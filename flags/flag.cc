#include "flags/flag.h"

#include "base/check.h"
#include "fmt/format.h"

namespace sluice::flags {

std::string_view LayerName(Layer layer) {
  switch (layer) {
    case Layer::kDefault:
      return "default";
    case Layer::kFile:
      return "file";
    case Layer::kRemote:
      return "remote";
    case Layer::kRolloutStage:
      return "rollout_stage";
    case Layer::kOverride:
      return "override";
    case Layer::kEnv:
      return "env";
    case Layer::kRollback:
      return "rollback";
    case Layer::kEmergency:
      return "emergency";
  }
  SLUICE_CHECK(false, "a Layer outside its enum");
}

std::string_view ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kSplit:
      return "SPLIT";
    case Reason::kStatic:
      return "STATIC";
    case Reason::kDisabled:
      return "DISABLED";
    case Reason::kParentOut:
      return "PARENT_OUT";
    case Reason::kTargetingKeyMissing:
      return "TARGETING_KEY_MISSING";
    case Reason::kEmergency:
      return "EMERGENCY";
    case Reason::kUnknownFlag:
      return "FLAG_NOT_FOUND";
    case Reason::kTargetingMatch:
      return "TARGETING_MATCH";
    case Reason::kDefault:
      return "DEFAULT";
    case Reason::kError:
      return "ERROR";
    case Reason::kSchedule:
      return "SCHEDULE";
  }
  SLUICE_CHECK(false, "a Reason outside its enum");
}

std::string TimeText(WallTime time) {
  using std::chrono::floor;
  const auto day = floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  const auto nanos = clock.subseconds().count();
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count(), nanos == 0 ? "" : fmt::format(".{:09}", nanos));
}

std::string Describe(const InertValue& inert) {
  return fmt::format("{} {}{}{} of {} is inert: {}", LayerName(inert.layer), inert.field,
                     inert.value.empty() ? "" : " ", inert.value, inert.flag, inert.why);
}

std::string Shown(std::string_view text) {
  constexpr size_t kMaxBytes = 128;
  std::string out(text.substr(0, kMaxBytes));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e || c == ';') c = '?';
  }
  return out;
}

std::string Explain(const Decision& decision) {
  std::string out =
      fmt::format("{}={};reason={}", Shown(decision.flag), Shown(decision.variant), ReasonName(decision.reason));
  if (decision.bucket >= 0) out += fmt::format(";bucket={};threshold={}", decision.bucket, decision.threshold);
  out += fmt::format(";layer={};epoch={}", LayerName(decision.layer), decision.epoch);
  if (decision.dry_run) out += ";dry_run=true";
  return out;
}

}  // namespace sluice::flags
