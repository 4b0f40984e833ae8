#include "config/yaml_reader.h"

#include <algorithm>
#include <limits>
#include <map>

#include "base/strings.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxFaults = 100;
constexpr size_t kMaxPathBytes = 4096;
constexpr int kAfterTheFile = std::numeric_limits<int>::max();
constexpr std::string_view kMapAllowed = "a map of keys and values";
constexpr std::string_view kBoolAllowed = "true or false";

std::string_view KindName(YamlNode::Kind kind) {
  switch (kind) {
    case YamlNode::Kind::kNull:
      return "has no value";
    case YamlNode::Kind::kScalar:
      return "is a single value";
    case YamlNode::Kind::kList:
      return "is a list";
    case YamlNode::Kind::kMap:
      return "is a map";
  }
  return "";
}

// Stores a parsed value, or hands on what is wrong.
template <typename T, typename U>
std::string Store(Parsed<T> parsed, U* out) {
  if (parsed.value) *out = *std::move(parsed.value);
  return std::move(parsed.what);
}

std::string Joined(std::vector<std::string> words) {
  std::sort(words.begin(), words.end());
  return fmt::format("{}", fmt::join(words, ", "));
}

// Kubernetes sets these for every Service, so one named "sluice" or "sluice-server" must not stop the server.
bool IsServiceLink(std::string_view name) {
  return name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") ||
         name.find("_SERVICE_PORT") != std::string_view::npos || name.find("_TCP") != std::string_view::npos ||
         name.find("_UDP") != std::string_view::npos;
}

}  // namespace

void Faults::Add(int line, std::string_view key, std::string_view what, std::string_view allowed) {
  const std::string where = line > 0 ? fmt::format("{}:{}", file_, line) : file_;
  Keep({line, fmt::format("{}: {}{}{}; allowed: {}", where, key, key.empty() ? "" : ": ", what, allowed)});
}

void Faults::AddVariable(std::string_view variable, std::string_view what, std::string_view allowed) {
  Keep({kAfterTheFile, fmt::format("environment: {}: {}; allowed: {}", variable, what, allowed)});
}

void Faults::Keep(Fault fault) {
  if (faults_.size() < kMaxFaults) {
    faults_.push_back(std::move(fault));
  } else {
    ++left_out_;
  }
}

absl::Status Faults::ToStatus() const {
  if (faults_.empty()) return absl::OkStatus();
  std::vector<Fault> sorted = faults_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Fault& a, const Fault& b) { return a.line < b.line; });
  std::string text;
  for (const Fault& fault : sorted) text += (text.empty() ? "" : "\n") + fault.text;
  if (left_out_ > 0) text += fmt::format("\n{}: {} more faults", file_, left_out_);
  return absl::InvalidArgumentError(text);
}

bool Variables::Read(const std::string& name, std::string_view allowed, const Accept& accept) {
  names_.push_back(name);
  const char* value = environment_ ? environment_(name.c_str()) : nullptr;
  if (value == nullptr) return false;
  const std::string what = accept(value, Source::kEnvironment);
  if (!what.empty()) faults_.AddVariable(name, what, allowed);
  return what.empty();
}

bool Variables::ReadBool(const std::string& name, bool* out) {
  return Read(name, "true, false, 1, 0, yes, no, on or off",
              [out](std::string_view text, Source) { return Store(ParseBool(text, /*digits=*/true), out); });
}

void Variables::RefuseUnknown(const std::vector<std::string>& all_names, const std::vector<std::string>& sections) {
  for (const std::string& name : all_names) {
    const bool ours = name.starts_with("SLUICE_") && name != "SLUICE_CACHE" && !name.starts_with("SLUICE_TEST_");
    if (!ours || IsServiceLink(name) || !ParseName(name).value) continue;
    if (std::find(names_.begin(), names_.end(), name) != names_.end()) continue;
    const std::optional<std::string> nearest = NearestName(name, names_);
    const bool below_section = std::any_of(sections.begin(), sections.end(), [&](const std::string& section) {
      return name.starts_with("SLUICE_" + ScreamingCase(section) + "_");
    });
    if (!nearest && !below_section) continue;
    faults_.AddVariable(name,
                        nearest ? fmt::format("unknown variable (did you mean {}?)", *nearest) : "unknown variable",
                        "SLUICE_ and the path of a key, as listed in docs/configuration.md");
  }
}

Section::Section(const YamlNode* node, int line, std::string path, Faults& faults, Variables* variables)
    : node_(node), line_(line), path_(std::move(path)), faults_(faults), variables_(variables) {
  if (node_ == nullptr || node_->kind == YamlNode::Kind::kNull) {
    node_ = nullptr;
  } else if (node_->kind != YamlNode::Kind::kMap) {
    faults_.Add(line_, path_, KindName(node_->kind), kMapAllowed);
    node_ = nullptr;
    wrong_kind_ = true;
  }
  std::map<std::string_view, int> first_lines;
  for (const YamlMember& member : members()) {
    const auto [first, fresh] = first_lines.emplace(member.key, member.line);
    if (fresh) continue;
    faults_.Add(member.line, PathOf(member.key), fmt::format("given twice (first in line {})", first->second), "once");
  }
}

Section::~Section() {
  for (const YamlMember& member : members()) {
    if (std::find(known_.begin(), known_.end(), member.key) != known_.end()) continue;
    const std::optional<std::string> nearest = NearestName(member.key, known_);
    faults_.Add(member.line, PathOf(member.key),
                nearest ? fmt::format("unknown key (did you mean {}?)", *nearest) : "unknown key", Joined(known_));
  }
}

const std::vector<YamlMember>& Section::members() const {
  static const std::vector<YamlMember> kNone;
  return node_ == nullptr ? kNone : node_->members;
}

const YamlMember* Section::Find(std::string_view key) const {
  for (const YamlMember& member : members()) {
    if (member.key == key) return &member;
  }
  return nullptr;
}

std::string Section::PathOf(std::string_view key) const {
  const std::string shown = ParseName(key).value ? std::string(key) : Quote(key);
  return path_.empty() ? shown : path_ + "." + shown;
}

bool Section::IsMap(std::string_view key) const {
  const YamlMember* member = Find(key);
  return member != nullptr && member->value.kind == YamlNode::Kind::kMap;
}

void Section::Fault(std::string_view key, std::string_view what, std::string_view allowed) {
  const YamlMember* member = Find(key);
  faults_.Add(member == nullptr ? line_ : member->line, PathOf(key), what, allowed);
}

void Section::Require(std::string_view key, std::string_view allowed) {
  if (!Has(key) && !wrong_kind_) Fault(key, "is missing", allowed);
}

void Section::Refuse(std::string_view key, std::string_view what, std::string_view allowed) {
  known_.emplace_back(key);
  Fault(key, what, allowed);
}

Section Section::Map(std::string_view key) {
  known_.emplace_back(key);
  const YamlMember* member = Find(key);
  return Section(member == nullptr ? nullptr : &member->value, member == nullptr ? line_ : member->line, PathOf(key),
                 faults_, variables_);
}

void Section::Each(std::string_view key, size_t max_items, const std::function<void(Section&)>& read) {
  known_.emplace_back(key);
  const YamlMember* member = Find(key);
  if (member == nullptr || member->value.kind == YamlNode::Kind::kNull) return;
  const std::vector<YamlNode>& items = member->value.items;
  if (member->value.kind != YamlNode::Kind::kList || items.size() > max_items) {
    Fault(key, member->value.kind == YamlNode::Kind::kList ? "has too many entries" : KindName(member->value.kind),
          fmt::format("a list of at most {} entries", max_items));
    return;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", PathOf(key), i);
    if (items[i].kind != YamlNode::Kind::kMap) {
      faults_.Add(items[i].line, path, KindName(items[i].kind), kMapAllowed);
      continue;
    }
    Section item(&items[i], items[i].line, path, faults_, nullptr);
    read(item);
  }
}

Source Section::Scalar(std::string_view key, bool literal, std::string_view allowed, const Accept& accept) {
  known_.emplace_back(key);
  Source source = Source::kDefault;
  if (const YamlMember* member = Find(key); member != nullptr) {
    const YamlNode& value = member->value;
    std::string what;
    if (value.kind != YamlNode::Kind::kScalar) {
      what = KindName(value.kind);
    } else if (literal && value.quoted) {
      what = Quote(value.text) + " is text in quotes";
    } else {
      what = accept(value.text, Source::kFile);
    }
    if (what.empty()) {
      source = Source::kFile;
    } else {
      Fault(key, what, allowed);
    }
  }
  if (variables_ != nullptr && variables_->Read("SLUICE_" + ScreamingCase(PathOf(key)), allowed, accept)) {
    source = Source::kEnvironment;
  }
  return source;
}

Source Section::Bool(std::string_view key, bool* out) {
  return Scalar(key, /*literal=*/true, kBoolAllowed, [out](std::string_view text, Source source) {
    return Store(ParseBool(text, /*digits=*/source == Source::kEnvironment), out);
  });
}

Source Section::ReadInteger(std::string_view key, int64_t min, int64_t max, std::string_view unit, int64_t* out) {
  return Scalar(key, /*literal=*/true, fmt::format("a whole number{} from {} to {}", unit, min, max),
                [=](std::string_view text, Source) { return Store(ParseInteger(text, min, max), out); });
}

Source Section::Millis(std::string_view key, int64_t min, int64_t max, Duration* out) {
  int64_t millis = 0;
  const Source source = ReadInteger(key, min, max, " of milliseconds", &millis);
  if (source != Source::kDefault) *out = std::chrono::milliseconds(millis);
  return source;
}

Source Section::Number(std::string_view key, double min, double max, double* out) {
  return Scalar(key, /*literal=*/true, fmt::format("a number from {} to {}", min, max),
                [=](std::string_view text, Source) { return Store(ParseNumber(text, min, max), out); });
}

Source Section::PercentAsBps(std::string_view key, uint32_t* out) {
  return Scalar(key, /*literal=*/true, "0 to 100 (percent) in steps of 0.01",
                [out](std::string_view text, Source) { return Store(ParsePercentAsBps(text), out); });
}

Source Section::Text(std::string_view key, size_t max_bytes, std::string* out) {
  return Scalar(key, /*literal=*/false, fmt::format("text of at most {} bytes", max_bytes),
                [=](std::string_view text, Source) { return Store(ParseText(text, max_bytes), out); });
}

Source Section::Name(std::string_view key, std::string* out) {
  return Scalar(key, /*literal=*/false, kNameAllowed,
                [out](std::string_view text, Source) { return Store(ParseName(text), out); });
}

Source Section::Address(std::string_view key, bool may_be_empty, std::string* out) {
  const std::string allowed =
      may_be_empty ? "HOST:PORT or [IPV6]:PORT, or \"\" for none" : "HOST:PORT or [IPV6]:PORT, port 0 to 65535";
  return Scalar(key, /*literal=*/false, allowed, [=](std::string_view text, Source) {
    if (may_be_empty && text.empty()) return Store(Parsed<std::string>{"", ""}, out);
    return Store(ParseAddress(text), out);
  });
}

Source Section::GrpcAddress(std::string_view key, bool may_be_empty, std::string* out) {
  return Scalar(key, /*literal=*/false, "HOST:PORT or [IPV6]:PORT, port 0 to 65535, or unix:/PATH of at most 107 bytes",
                [=](std::string_view text, Source) {
                  if (may_be_empty && text.empty()) {
                    out->clear();
                    return std::string();
                  }
                  return Store(ParseGrpcAddress(text), out);
                });
}

Source Section::ReadWord(std::string_view key, const std::vector<std::string>& words, size_t* chosen) {
  return Scalar(key, /*literal=*/false, fmt::format("{}", fmt::join(words, ", ")), [&](std::string_view text, Source) {
    const auto word = std::find(words.begin(), words.end(), text);
    if (word == words.end()) return Quote(text) + " is not known";
    *chosen = static_cast<size_t>(word - words.begin());
    return std::string();
  });
}

Source Section::Names(std::string_view key, size_t max_items, std::vector<std::string>* out) {
  return Strings(key, max_items, kNameAllowed, ParseName, out);
}

Source Section::Texts(std::string_view key, size_t max_items, size_t max_bytes, std::vector<std::string>* out) {
  return Strings(
      key, max_items, fmt::format("text of 1 to {} bytes", max_bytes),
      [=](std::string_view text) { return ParseText(text, max_bytes); }, out);
}

const YamlNode* Section::Value(std::string_view key) {
  known_.emplace_back(key);
  const YamlMember* member = Find(key);
  return member == nullptr ? nullptr : &member->value;
}

Source Section::Paths(std::string_view key, size_t max_items, std::vector<std::string>* out) {
  const Source source = Strings(
      key, max_items, "a path", [](std::string_view text) { return ParseText(text, kMaxPathBytes); }, out);
  const auto split = [out](std::string_view text, Source) {
    Parsed<std::string> checked = ParseText(text, kMaxPathBytes);
    if (!checked.value) return checked.what;
    out->clear();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find(':', begin), text.size());
      if (end > begin) out->emplace_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    return std::string();
  };
  const std::string name = "SLUICE_" + ScreamingCase(PathOf(key));
  const bool read = variables_ != nullptr && variables_->Read(name, "folders separated by ':'", split);
  return read ? Source::kEnvironment : source;
}

Source Section::Strings(std::string_view key, size_t max_items, std::string_view allowed, const ParseItem& parse,
                        std::vector<std::string>* out) {
  known_.emplace_back(key);
  const YamlMember* member = Find(key);
  if (member == nullptr || member->value.kind == YamlNode::Kind::kNull) return Source::kDefault;
  if (member->value.kind != YamlNode::Kind::kList || member->value.items.size() > max_items) {
    Fault(key, member->value.kind == YamlNode::Kind::kList ? "has too many entries" : KindName(member->value.kind),
          fmt::format("a list of at most {} entries", max_items));
    return Source::kDefault;
  }
  out->clear();
  for (size_t i = 0; i < member->value.items.size(); ++i) {
    const YamlNode& item = member->value.items[i];
    std::string value;
    std::string what(KindName(item.kind));
    if (item.kind == YamlNode::Kind::kScalar) {
      what = Store(parse(item.text), &value);
      if (what.empty() && value.empty()) what = "is empty";
    }
    if (what.empty()) {
      out->push_back(std::move(value));
    } else {
      faults_.Add(item.line, fmt::format("{}[{}]", PathOf(key), i), what, allowed);
    }
  }
  return Source::kFile;
}

}  // namespace sluice::config
