// Lists of named things in a YAML file, for readers of several files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "config/yaml_reader.h"
#include "config/yaml_tree.h"
#include "fmt/format.h"

namespace sluice::config {

// The member's value and line; null, and `line` as it was, when there is none.
inline const YamlNode* MemberOf(const YamlNode& map, std::string_view key, int* line) {
  for (const YamlMember& member : map.members) {
    if (member.key != key) continue;
    *line = member.line;
    return &member.value;
  }
  return nullptr;
}

// A fault for each entry of the list `key` that is like one above it. `of`: what must differ. Needs the list that
// `entries` was read from, so it does nothing when there are faults already.
template <typename Entry, typename Of>
void CheckUnique(const YamlNode& root, std::string_view key, const std::vector<Entry>& entries, const Of& of,
                 Faults& faults) {
  if (!faults.empty()) return;
  int line = root.line;
  const YamlNode* const list = MemberOf(root, key, &line);
  absl::flat_hash_set<std::string> seen;
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string name = of(entries[i]);
    if (seen.insert(name).second) continue;
    faults.Add(list->items[i].line, fmt::format("{}[{}]", key, i), fmt::format("{} stands above already", name),
               "once");
  }
}

}  // namespace sluice::config
