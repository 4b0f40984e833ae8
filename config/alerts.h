// `alerts:` of a file: the webhooks that its other parts name.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "config/yaml_reader.h"
#include "config/yaml_tree.h"

namespace sluice::config {

struct AlertWebhook {
  std::string name, url;  // http:// or https://
  Duration timeout = std::chrono::seconds(5);
  int max_retries = 3;
  Duration dedup_window = std::chrono::minutes(5);  // the same alert is told once in it; zero: each time
  std::string secret_file;                          // its content signs each message; empty: none does
};

// At most 64. Does not open secret files.
void ReadAlerts(Section& root, std::vector<AlertWebhook>* out);
// Each name once.
void CheckAlerts(const YamlNode& file, const std::vector<AlertWebhook>& alerts, Faults& faults);

}  // namespace sluice::config
