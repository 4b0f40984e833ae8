#include "services/flag_control.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace sluice::services {
namespace {

using flags::Layer;
using nlohmann::json;

constexpr std::string_view kOverrides = "flags/override/";
constexpr std::string_view kEmergency = "flags/emergency";
constexpr size_t kMaxWaiting = 64;

std::string ByWhom(const Actor& actor) { return fmt::format("{}: {}", actor.who, actor.why); }

template <typename T>
std::optional<T> Get(const json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end()) return std::nullopt;
  if constexpr (std::is_same_v<T, bool>) {
    if (!it->is_boolean()) return std::nullopt;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!it->is_string()) return std::nullopt;
  } else {
    if (!it->is_number_unsigned()) return std::nullopt;
  }
  return it->get<T>();
}

// What the store keeps, as layers. Entries that cannot be read are logged and left out.
std::map<Layer, flags::LayerContent> Decode(const std::map<std::string, state::Entry>& entries) {
  std::map<Layer, flags::LayerContent> layers;
  flags::LayerContent& overrides = layers[Layer::kOverride];
  flags::LayerContent& emergency = layers[Layer::kEmergency];
  for (const auto& [key, entry] : entries) {
    const json object = json::parse(entry.value, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      LogError("state ignored", {{"key", key}, {"error", "not a JSON object"}});
    } else if (key == kEmergency) {
      emergency.kill_switch = Get<bool>(object, "kill_switch").value_or(false);
      emergency.rollback_to_baseline = Get<bool>(object, "rollback_to_baseline").value_or(false);
    } else if (key.starts_with(kOverrides)) {
      const std::string who = Get<std::string>(object, "who").value_or("");
      flags::FlagValues values{.enabled = Get<bool>(object, "enabled"),
                               .rollout_bps = Get<flags::RolloutBps>(object, "rollout_bps")};
      if (values.enabled) values.enabled_by = who;
      if (values.rollout_bps) values.rollout_by = who;
      overrides.values[key.substr(kOverrides.size())] = std::move(values);
    }
  }
  return layers;
}

json Encode(const flags::FlagValues& values) {
  json object = json::object();
  if (values.enabled) object["enabled"] = *values.enabled;
  if (values.rollout_bps) object["rollout_bps"] = *values.rollout_bps;
  return object;
}

}  // namespace

FlagControl::FlagControl(flags::FlagSources& sources, flags::FlagGate& gate, state::StateStore* store,
                         const Clock& clock)
    : sources_(sources), gate_(gate), store_(store), clock_(clock) {
  if (store_ != nullptr) subscription_ = store_->Watch("flags/", [this](const auto& changes) { Follow(changes); });
  worker_ = std::thread([this] { WorkOff(); });
}

FlagControl::~FlagControl() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.SignalAll();
  worker_.join();
}

void FlagControl::Follow(const absl::StatusOr<state::Changes>& changes) {
  for (const Layer layer : {Layer::kOverride, Layer::kEmergency}) sources_.MarkStale(layer, !changes.ok());
  if (!changes.ok()) {
    LogError("state store out of reach", {{"error", std::string(changes.status().message())}});
    return;
  }
  std::map<Layer, flags::LayerContent> layers;
  {
    MutexLock lock(mirror_mu_);
    for (const state::Entry& entry : changes->put) mirror_[entry.key] = entry;
    for (const std::string& key : changes->deleted) mirror_.erase(key);
    layers = Decode(mirror_);
  }
  for (auto& [layer, content] : layers) {
    (void)sources_.SetLayer(layer, std::move(content), "state store");  // a refusal is logged by the sources' listener
  }
}

void FlagControl::Enqueue(Work work, Done done) {
  {
    MutexLock lock(mu_);
    if (queue_.size() < kMaxWaiting && !stopping_) {
      queue_.emplace_back(std::move(work), std::move(done));
      wake_.SignalAll();
      return;
    }
  }
  done(MakeError(Reason::kTooManyChanges, fmt::format("{} changes of flags wait already", kMaxWaiting),
                 {.retry_after = std::chrono::seconds(1)}));
}

void FlagControl::WorkOff() {
  MutexLock lock(mu_);
  while (true) {
    while (!stopping_ && queue_.empty()) wake_.Wait(mu_);
    if (queue_.empty()) return;
    auto [work, done] = std::move(queue_.front());
    queue_.pop_front();
    const bool stop = stopping_;
    mu_.Unlock();
    done(stop ? MakeError(Reason::kDraining, "the server stops") : work());
    mu_.Lock();
  }
}

void FlagControl::Set(const std::string& flag, flags::FlagValues values, const Actor& actor,
                      std::optional<uint64_t> expected_epoch, Done done) {
  Enqueue([=, this, values = std::move(values)] { return SetNow(flag, values, actor, expected_epoch); },
          std::move(done));
}

void FlagControl::SetEmergency(bool EmergencySwitches::*which, bool on, const Actor& actor, Done done) {
  Enqueue([=, this] { return SetEmergencyNow(which, on, actor); }, std::move(done));
}

std::string FlagControl::Described(json what, const Actor& actor) const {
  what["who"] = actor.who;
  what["why"] = actor.why;
  what["when"] = flags::TimeText(clock_.WallNow());
  return what.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::Status FlagControl::Keep(const std::string& key, const std::string& value) {
  if (store_ == nullptr) return absl::FailedPreconditionError("no state folder is configured");
  uint64_t expected = 0;
  {
    MutexLock lock(mirror_mu_);
    if (const auto it = mirror_.find(key); it != mirror_.end()) expected = it->second.revision;
  }
  if (value.empty() && expected == 0) return absl::OkStatus();
  const auto revision = value.empty() ? store_->Delete(key, expected) : store_->Put(key, value, expected);
  if (!revision.ok()) return revision.status();
  MutexLock lock(mirror_mu_);
  if (value.empty()) {
    mirror_.erase(key);
  } else {
    mirror_[key] = {.key = key, .value = value, .revision = *revision};
  }
  return absl::OkStatus();
}

absl::StatusOr<FlagOutcome> FlagControl::SetNow(const std::string& flag, const flags::FlagValues& values,
                                                const Actor& actor, std::optional<uint64_t> expected_epoch) {
  const auto before = gate_.snapshot();
  flags::FlagValues previous;
  const auto layers = sources_.layers();
  if (const auto it = layers.find(Layer::kOverride); it != layers.end()) {
    if (const auto of = it->second.content.values.find(flag); of != it->second.content.values.end()) {
      previous = of->second;
    }
  }
  SLUICE_RETURN_IF_ERROR(sources_.SetValues(Layer::kOverride, flag, values, ByWhom(actor), expected_epoch));
  const bool taken_back = !values.enabled && !values.rollout_bps;
  const std::string key = std::string(kOverrides) + flag;
  const absl::Status kept = Keep(key, taken_back ? "" : Described(Encode(values), actor));
  if (!kept.ok() && store_ != nullptr) {
    (void)sources_.SetValues(Layer::kOverride, flag, previous, "the state store did not keep: " + ByWhom(actor));
    return MakeError(
        Reason::kStateNotKept,
        fmt::format("the state store did not keep the change, so it was taken back: {}", std::string(kept.message())));
  }
  const auto after = gate_.snapshot();
  FlagOutcome outcome{
      .epoch = after->epoch(), .changes = flags::FindChanges(before->spec(), after->spec()), .kept = kept.ok()};
  for (const flags::InertValue& inert : after->spec().inert) {
    if (inert.flag == flag && inert.layer == Layer::kOverride) outcome.inert.push_back(flags::Describe(inert));
  }
  return outcome;
}

absl::StatusOr<FlagOutcome> FlagControl::SetEmergencyNow(bool EmergencySwitches::*which, bool on, const Actor& actor) {
  const auto before = gate_.snapshot();
  flags::LayerContent content = sources_.layers()[Layer::kEmergency].content;
  EmergencySwitches switches{content.kill_switch, content.rollback_to_baseline};
  switches.*which = on;
  content.kill_switch = switches.kill_switch;
  content.rollback_to_baseline = switches.rollback_to_baseline;
  SLUICE_RETURN_IF_ERROR(sources_.SetLayer(Layer::kEmergency, std::move(content), ByWhom(actor)));
  const absl::Status kept =
      Keep(std::string(kEmergency),
           Described({{"kill_switch", switches.kill_switch}, {"rollback_to_baseline", switches.rollback_to_baseline}},
                     actor));
  if (!kept.ok() && store_ != nullptr) {
    LogError("emergency switch not kept", {{"error", std::string(kept.message())}});
  }
  const auto after = gate_.snapshot();
  FlagOutcome outcome{
      .epoch = after->epoch(), .changes = flags::FindChanges(before->spec(), after->spec()), .kept = kept.ok()};
  for (const auto& [layer, state] : sources_.layers()) {
    const EmergencySwitches of{state.content.kill_switch, state.content.rollback_to_baseline};
    if (!on && layer != Layer::kEmergency && of.*which) outcome.inert.emplace_back(flags::LayerName(layer));
  }
  return outcome;
}

}  // namespace sluice::services
