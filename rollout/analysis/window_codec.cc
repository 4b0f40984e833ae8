#include "rollout/analysis/window_codec.h"

#include <charconv>
#include <cmath>
#include <string>

#include "fmt/format.h"

namespace sluice::rollout {
namespace {

constexpr std::string_view kFormat = "w1";

void Put(std::string& out, const Sketch& sketch) {
  const Sketch::Form form = sketch.ToForm();
  fmt::format_to(std::back_inserter(out), " {} {} {} {} {}", form.buckets.size(), form.zeros, form.sum, form.min,
                 form.max);
  for (const auto& [index, count] : form.buckets) {
    fmt::format_to(std::back_inserter(out), " {}:{}", index, count);
  }
}

// Reads word after word; remembers the first that did not fit.
class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}

  std::string_view Next(std::string_view what) {
    const size_t end = std::min(rest_.find(' '), rest_.size());
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    if (word.empty()) Fail(what);
    return word;
  }
  template <typename T>
  T Number(std::string_view what) {
    return Parse<T>(Next(what), what);
  }
  template <typename T>
  T Parse(std::string_view word, std::string_view what) {
    T value{};
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    bool good = error == std::errc() && end == word.data() + word.size() && !word.empty();
    if constexpr (std::is_floating_point_v<T>) good = good && std::isfinite(value);
    if (!good) Fail(what);
    return good ? value : T{};
  }
  void Fail(std::string_view what) {
    if (error_.empty()) error_ = what;
  }
  const std::string& error() const { return error_; }
  bool done() const { return rest_.empty(); }

 private:
  std::string_view rest_;
  std::string error_;
};

Sketch TakeSketch(Words& words) {
  const auto buckets = words.Number<size_t>("number of buckets");
  Sketch::Form form;
  form.zeros = words.Number<uint64_t>("zeros");
  form.sum = words.Number<double>("sum");
  form.min = words.Number<double>("min");
  form.max = words.Number<double>("max");
  if (buckets > Sketch::kMaxBuckets) words.Fail("number of buckets");
  for (size_t i = 0; i < buckets && words.error().empty(); ++i) {
    const std::string_view word = words.Next("bucket");
    const size_t colon = std::min(word.find(':'), word.size());
    const auto index = words.Parse<int32_t>(word.substr(0, colon), "bucket index");
    const auto count = words.Parse<uint64_t>(word.substr(std::min(colon + 1, word.size())), "bucket count");
    form.buckets.emplace_back(index, count);
  }
  return words.error().empty() ? Sketch::FromForm(form) : Sketch();
}

void TakeArm(Words& words, ArmWindow* arm) {
  arm->requests = words.Number<uint64_t>("requests");
  arm->events = words.Number<uint64_t>("events");
  arm->failures = words.Number<uint64_t>("failures");
  arm->first_users = words.Number<uint64_t>("first users");
  arm->crashes = words.Number<uint64_t>("crashes");
  arm->memory_bytes = words.Number<double>("memory");
  if (arm->failures > arm->events || arm->events > arm->requests || arm->first_users > arm->events) {
    words.Fail("counts of an arm (failures and first users are events, events are requests)");
  }
  for (Sketch& sketch : arm->ttft_ms) sketch = TakeSketch(words);
  for (Sketch& sketch : arm->latency_ms) sketch = TakeSketch(words);
}

}  // namespace

std::string Encode(const Window& window) {
  std::string out = fmt::format("{} {} {} {} {} {} {} {}", kFormat, window.attempt, window.replica, window.index,
                                window.length.count(), window.canary_bps, window.mixed ? 1 : 0, window.rss_bytes);
  for (const ArmWindow& arm : window.arms) {
    fmt::format_to(std::back_inserter(out), " {} {} {} {} {} {}", arm.requests, arm.events, arm.failures,
                   arm.first_users, arm.crashes, arm.memory_bytes);
    for (const Sketch& sketch : arm.ttft_ms) Put(out, sketch);
    for (const Sketch& sketch : arm.latency_ms) Put(out, sketch);
  }
  return out;
}

absl::StatusOr<Window> DecodeWindow(std::string_view text) {
  if (text.size() > kMaxWindowBytes) {
    return absl::InvalidArgumentError(fmt::format("a window of {} bytes; at most {}", text.size(), kMaxWindowBytes));
  }
  Words words(text);
  Window window;
  if (words.Next("format") != kFormat) words.Fail("format");
  window.attempt = words.Next("attempt");
  window.replica = words.Next("replica");
  window.index = words.Number<int64_t>("index");
  window.length = Duration(words.Number<int64_t>("length"));
  window.canary_bps = words.Number<uint32_t>("share");
  const auto mixed = words.Number<int>("mixed");
  window.mixed = mixed == 1;
  window.rss_bytes = words.Number<double>("rss");
  if (window.length <= Duration::zero()) words.Fail("length");
  if (window.canary_bps > 10'000) words.Fail("share");
  if (mixed != 0 && mixed != 1) words.Fail("mixed");
  for (ArmWindow& arm : window.arms) TakeArm(words, &arm);
  if (!words.done()) words.Fail("end");
  if (!words.error().empty()) return absl::InvalidArgumentError("a window whose " + words.error() + " does not fit");
  return window;
}

}  // namespace sluice::rollout
