// A YAML file as a plain tree with line numbers. yaml_tree.cc is the only user of yaml-cpp; its exceptions end there.
// A subset on purpose: one document, at most 1 MiB, 50 000 values and 32 levels, valid UTF-8 without control
// characters, no aliases (so no alias bombs), no tags, plain text as keys. Whatever else is a fault with its line.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::config {

struct YamlMember;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  int line = 0;         // from 1; 0: not from a file
  bool quoted = false;  // scalars: written in quotes or as a block, so never a number or a boolean
  std::string text;     // scalars: as written, unquoted
  std::vector<YamlNode> items;
  std::vector<YamlMember> members;  // in file order; duplicate keys are kept, for the reader to refuse
};

struct YamlMember {
  std::string key;
  int line = 0;  // of the key
  YamlNode value;
};

// `file` names the text in faults. INVALID_ARGUMENT "file:line: syntax: what is wrong; what is allowed".
absl::StatusOr<YamlNode> ParseYaml(const std::string& file, const std::string& text);

// NOT_FOUND or INVALID_ARGUMENT when `path` cannot be read as a regular file.
absl::StatusOr<YamlNode> LoadYamlFile(const std::string& path);

}  // namespace sluice::config
