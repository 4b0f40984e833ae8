#include <algorithm>
#include <map>

#include "base/status.h"
#include "config/config_loader.h"
#include "config/values.h"
#include "config/yaml_reader.h"
#include "fmt/format.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxKeys = 10'000;
constexpr std::string_view kHashAllowed = "64 lower-case hex digits, as `printf %s TOKEN | sha256sum` prints";
// What sha256sum prints when the token was an unset variable.
constexpr std::string_view kEmptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// Never shows the text: somebody may have pasted the token itself.
std::string CheckHash(std::string_view text) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (text.size() != 64) return fmt::format("is not a SHA-256 (it has {} characters)", text.size());
  if (!std::all_of(text.begin(), text.end(), hex)) return "is not a SHA-256 (it has other characters)";
  return text == kEmptyHash ? "is the SHA-256 of an empty token" : "";
}

ApiKey ReadKey(Section& item) {
  ApiKey key;
  item.Require("name", "a name for logs");
  item.Require("token_sha256", kHashAllowed);
  item.Require("tenant", "the tenant that this caller acts for");
  item.Name("name", &key.name);
  item.Scalar("token_sha256", /*literal=*/false, kHashAllowed, [&](std::string_view text, Source) {
    std::string what = CheckHash(text);
    if (what.empty()) key.token_sha256 = text;
    return what;
  });
  item.Name("tenant", &key.tenant);
  std::vector<std::pair<std::string, qos::QosClass>> classes;
  for (int c = 0; c < qos::kQosClassCount; ++c) {
    classes.emplace_back(qos::QosClassName(static_cast<qos::QosClass>(c)), static_cast<qos::QosClass>(c));
  }
  item.Choice("highest_class", classes, &key.highest_class);
  item.Names("models", 1000, &key.models);
  item.Bool("admin", &key.admin);
  return key;
}

}  // namespace

absl::StatusOr<std::vector<ApiKey>> LoadApiKeys(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const YamlNode file, LoadYamlFile(path));
  Faults faults(path);
  std::vector<ApiKey> keys;
  std::map<std::string, std::string> names, hashes;  // → path of the first entry that has it
  {
    Section root(&file, file.line, "", faults, nullptr);
    root.Each("keys", kMaxKeys, [&](Section& item) {
      ApiKey key = ReadKey(item);
      const auto once = [&](auto& seen, const std::string& value, std::string_view field) {
        const auto [first, fresh] = seen.emplace(value, item.path());
        if (!fresh && !value.empty()) item.Fault(field, "is the same as in " + first->second, "one entry with it");
      };
      once(names, key.name, "name");
      once(hashes, key.token_sha256, "token_sha256");
      keys.push_back(std::move(key));
    });
    // Without any key everybody would be locked out.
    if (keys.empty() && faults.ToStatus().ok()) {
      root.Fault("keys", "has no entry", fmt::format("1 to {} entries", kMaxKeys));
    }
  }
  if (absl::Status status = faults.ToStatus(); !status.ok()) return status;
  return keys;
}

}  // namespace sluice::config
