// A typed reader over a YAML tree that collects every fault instead of stopping at the first, and lets environment
// variables override keys. A key is declared once, by reading it; what nobody read is unknown.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "config/config_loader.h"
#include "config/values.h"
#include "config/yaml_tree.h"

namespace sluice::config {

// Section::Name
inline constexpr std::string_view kNameAllowed = "1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -";

// Where a value came from; later beats earlier.
enum class Source { kDefault, kFile, kEnvironment };

// The faults of one load. Keeps at most 100; the others are counted. Thread-compatible.
class Faults {
 public:
  explicit Faults(std::string file) : file_(std::move(file)) {}
  // "file:line: key: what; allowed: allowed"; line 0: without line.
  void Add(int line, std::string_view key, std::string_view what, std::string_view allowed);
  // "environment: VARIABLE: what; allowed: allowed"
  void AddVariable(std::string_view variable, std::string_view what, std::string_view allowed);
  bool empty() const { return faults_.empty(); }
  // One line per fault in file order, variables last; OK when there are none.
  absl::Status ToStatus() const;

 private:
  struct Fault {
    int line;
    std::string text;
  };
  void Keep(Fault fault);
  const std::string file_;
  std::vector<Fault> faults_;
  size_t left_out_ = 0;
};

// Takes the text in: stores the value, or returns what is wrong with it.
using Accept = std::function<std::string(std::string_view text, Source source)>;

// Environment variables of one load. Thread-compatible.
class Variables {
 public:
  // `environment` may be empty: nothing is set.
  Variables(const Environment& environment, Faults& faults) : environment_(environment), faults_(faults) {}
  // False when unset or refused.
  bool Read(const std::string& name, std::string_view allowed, const Accept& accept);
  bool ReadBool(const std::string& name, bool* out);
  // A fault for each of `all_names` that begins with SLUICE_, was not read, and looks like a key: near to one, or
  // below one of `sections` ("server", ...). Kubernetes' service links (SLUICE_SERVICE_HOST ...) are not ours.
  void RefuseUnknown(const std::vector<std::string>& all_names, const std::vector<std::string>& sections);

 private:
  const Environment& environment_;
  Faults& faults_;
  std::vector<std::string> names_;
};

// One map of the file; a missing or empty one reads as having no keys. Outputs are written only with fit values, so
// what they held before is the default. The destructor reports unknown keys. Thread-compatible; lives on the stack.
class Section {
 public:
  // `node`: a map (else a fault) or null. `variables` null: the environment does not override these keys.
  Section(const YamlNode* node, int line, std::string path, Faults& faults, Variables* variables);
  ~Section();
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  Section Map(std::string_view key);
  // A list of maps.
  void Each(std::string_view key, size_t max_items, const std::function<void(Section&)>& read);
  Source Names(std::string_view key, size_t max_items, std::vector<std::string>* out);
  Source Paths(std::string_view key, size_t max_items, std::vector<std::string>* out);  // environment: a:b:c
  Source Texts(std::string_view key, size_t max_items, size_t max_bytes, std::vector<std::string>* out);  // not empty

  Source Bool(std::string_view key, bool* out);
  template <typename Int>
  Source Integer(std::string_view key, int64_t min, int64_t max, Int* out) {
    int64_t value = 0;
    const Source source = ReadInteger(key, min, max, "", &value);
    if (source != Source::kDefault) *out = static_cast<Int>(value);
    return source;
  }
  Source Millis(std::string_view key, int64_t min, int64_t max, Duration* out);
  Source Number(std::string_view key, double min, double max, double* out);
  Source PercentAsBps(std::string_view key, uint32_t* out);
  Source Text(std::string_view key, size_t max_bytes, std::string* out);
  Source Name(std::string_view key, std::string* out);
  Source Address(std::string_view key, bool may_be_empty, std::string* out);
  Source GrpcAddress(std::string_view key, bool may_be_empty, std::string* out);
  template <typename Enum>
  Source Choice(std::string_view key, const std::vector<std::pair<std::string, Enum>>& choices, Enum* out) {
    std::vector<std::string> words;
    for (const auto& choice : choices) words.push_back(choice.first);
    size_t chosen = 0;
    const Source source = ReadWord(key, words, &chosen);
    if (source != Source::kDefault) *out = choices[chosen].second;
    return source;
  }

  // A value checked by `accept`; `literal`: text in quotes is refused.
  Source Scalar(std::string_view key, bool literal, std::string_view allowed, const Accept& accept);

  void Require(std::string_view key, std::string_view allowed);  // a fault when the file does not give it
  // A fault at the line of `key`, or of the section when the file does not give it.
  void Fault(std::string_view key, std::string_view what, std::string_view allowed);
  void Refuse(std::string_view key, std::string_view what, std::string_view allowed);  // Fault, and not unknown as well
  // The value as it stands, for a reader of its own; null when the file does not give it.
  const YamlNode* Value(std::string_view key);
  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  bool IsMap(std::string_view key) const;
  const std::vector<YamlMember>& members() const;
  const std::string& path() const { return path_; }

 private:
  const YamlMember* Find(std::string_view key) const;
  std::string PathOf(std::string_view key) const;
  Source ReadInteger(std::string_view key, int64_t min, int64_t max, std::string_view unit, int64_t* out);
  Source ReadWord(std::string_view key, const std::vector<std::string>& words, size_t* chosen);
  using ParseItem = std::function<Parsed<std::string>(std::string_view)>;
  Source Strings(std::string_view key, size_t max_items, std::string_view allowed, const ParseItem& parse,
                 std::vector<std::string>* out);

  const YamlNode* node_;  // null: no keys
  bool wrong_kind_ = false;
  const int line_;
  const std::string path_;  // empty: the whole file
  Faults& faults_;
  Variables* const variables_;
  std::vector<std::string> known_;
};

}  // namespace sluice::config
