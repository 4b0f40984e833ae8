#include "config/alerts.h"

#include <string_view>

#include "config/lists.h"
#include "config/values.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxAlerts = 64, kMaxUrl = 1024;
constexpr int64_t kDayMs = 86'400'000;

void ReadAlert(Section& section, AlertWebhook* out) {
  section.Require("name", kNameAllowed);
  section.Name("name", &out->name);
  constexpr std::string_view kUrlAllowed = "http://HOST/... or https://HOST/..., at most 1024 bytes, without spaces";
  section.Require("url", kUrlAllowed);
  section.Scalar("url", /*literal=*/false, kUrlAllowed, [out](std::string_view text, Source) {
    const Parsed<std::string> parsed = ParseText(text, kMaxUrl);
    if (!parsed.value) return parsed.what;
    const size_t host = text.starts_with("http://") ? 7 : text.starts_with("https://") ? 8 : text.size();
    if (host >= text.size() || text.find(' ') != std::string_view::npos) return Quote(text) + " is not such a URL";
    out->url = text;
    return std::string();
  });
  section.Millis("timeout_ms", 100, 60'000, &out->timeout);
  section.Integer("max_retries", 0, 10, &out->max_retries);
  section.Millis("dedup_window_ms", 0, kDayMs, &out->dedup_window);
  section.Text("secret_file", 4096, &out->secret_file);
}

}  // namespace

void ReadAlerts(Section& root, std::vector<AlertWebhook>* out) {
  root.Each("alerts", kMaxAlerts, [&](Section& item) { ReadAlert(item, &out->emplace_back()); });
}

void CheckAlerts(const YamlNode& file, const std::vector<AlertWebhook>& alerts, Faults& faults) {
  CheckUnique(
      file, "alerts", alerts, [](const AlertWebhook& alert) { return "alert " + alert.name; }, faults);
}

}  // namespace sluice::config
