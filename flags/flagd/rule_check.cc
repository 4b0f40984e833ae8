#include "flags/flagd/rule_check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>
#include <utility>

#include "flags/flagd/sem_ver.h"
#include "flags/flagd/strict_json.h"
#include "fmt/format.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

const std::string* Text(const json& value) { return value.get_ptr<const std::string*>(); }

constexpr size_t kAny = std::numeric_limits<size_t>::max();

// Operators of which only the number of operands is prescribed.
struct Arity {
  std::string_view name;
  size_t least, most;
  bool bare = false;  // a single operand may stand without a list
};
constexpr std::array kArities = std::to_array<Arity>({
    {"if", 1, kAny},   {"?:", 1, kAny},       {"or", 1, kAny},     {"and", 1, kAny},  {"+", 1, kAny},
    {"-", 1, kAny},    {"max", 1, kAny},      {"min", 1, kAny},    {"cat", 1, kAny},  {"merge", 1, kAny},
    {"*", 2, kAny},    {"substr", 2, 3},      {"<", 2, 3},         {"<=", 2, 3},      {"reduce", 3, 3},
    {"!", 1, 1, true}, {"!!", 1, 1, true},    {"==", 2, 2},        {"===", 2, 2},     {"!=", 2, 2},
    {"!==", 2, 2},     {">", 2, 2},           {">=", 2, 2},        {"%", 2, 2},       {"/", 2, 2},
    {"map", 2, 2},     {"filter", 2, 2},      {"all", 2, 2},       {"none", 2, 2},    {"some", 2, 2},
    {"in", 2, 2},      {"starts_with", 2, 2}, {"ends_with", 2, 2}, {"sem_ver", 3, 3},
});

class Checker {
 public:
  Checker(const json* shared_rules, std::vector<FieldViolation>& faults)
      : shared_rules_(shared_rules), faults_(faults) {}

  void Rule(const json& rule, const std::string& path) {
    if (!rule.is_object()) return Fault(path, "a rule is an object with one operator", rule);
    if (rule.size() != 1) {
      return Fault(path, fmt::format("got {} keys; a rule has one operator", rule.size()));
    }
    const std::string& name = rule.begin().key();
    const json& arguments = rule.begin().value();
    const std::string at = Path(path, name);
    if (name == "var") return Var(arguments, at);
    if (name == "$ref") return Ref(arguments, at);
    if (name == "missing") return Strings(arguments, at);
    if (name == "missing_some") return MissingSome(arguments, at);
    if (name == "fractional") return Fractional(arguments, at);
    const auto arity = std::find_if(kArities.begin(), kArities.end(), [&](const Arity& a) { return a.name == name; });
    if (arity == kArities.end()) return Fault(path, fmt::format("there is no operator \"{}\"", name));
    if (!arguments.is_array() && arity->bare) return Operand(arguments, at);
    if (!List(arguments, at, arity->least, arity->most)) return;
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string here = Path(at, i);
      if (name == "starts_with" || name == "ends_with") {
        if (!arguments[i].is_string()) Rule(arguments[i], here);
      } else if (name == "sem_ver") {
        SemVerOperand(arguments[i], i, here);
      } else {
        Operand(arguments[i], here);
      }
    }
  }

 private:
  void Fault(const std::string& path, std::string what) { faults_.push_back({path, std::move(what)}); }
  void Fault(const std::string& path, std::string_view allowed, const json& found) {
    Fault(path, fmt::format("got {}; {}", found.is_structured() ? found.type_name() : found.dump(), allowed));
  }

  bool List(const json& list, const std::string& path, size_t least, size_t most) {
    if (!list.is_array()) {
      Fault(path, "allowed is a list of operands", list);
      return false;
    }
    if (list.size() >= least && list.size() <= most) return true;
    const std::string allowed = most == kAny    ? fmt::format("{} or more", least)
                                : least == most ? fmt::format("{}", least)
                                                : fmt::format("{} to {}", least, most);
    Fault(path, fmt::format("got {} operands; allowed {}", list.size(), allowed));
    return false;
  }

  // A value, a list (whatever is in it), or a rule.
  void Operand(const json& operand, const std::string& path) {
    if (operand.is_object()) Rule(operand, path);
  }

  void Var(const json& arguments, const std::string& path) {
    const json& name = arguments.is_array() && !arguments.empty() ? arguments[0] : arguments;
    if (const std::string* text = Text(name)) {
      if (text->starts_with("$flagd.") && *text != "$flagd.flagKey" && *text != "$flagd.timestamp") {
        Fault(path, "allowed of $flagd are flagKey and timestamp", name);
      }
    } else if (name.is_object()) {
      Rule(name, path);
    }
  }

  void Ref(const json& name, const std::string& path) {
    const std::string* text = Text(name);
    if (text == nullptr) return Fault(path, "allowed is the name of a shared rule", name);
    if (shared_rules_ == nullptr || !shared_rules_->contains(*text)) Fault(path, "no such rule in $evaluators", name);
  }

  void Strings(const json& list, const std::string& path) {
    if (!List(list, path, 0, kAny)) return;
    for (size_t i = 0; i < list.size(); ++i) {
      if (!list[i].is_string()) Fault(Path(path, i), "allowed are names of attributes", list[i]);
    }
  }

  void MissingSome(const json& arguments, const std::string& path) {
    if (!List(arguments, path, 2, 2)) return;
    if (!arguments[0].is_number()) Fault(Path(path, size_t{0}), "allowed is a number", arguments[0]);
    Strings(arguments[1], Path(path, 1));
  }

  void SemVerOperand(const json& operand, size_t index, const std::string& path) {
    const std::string* text = Text(operand);
    if (index == 1) {
      constexpr std::array<std::string_view, 8> kRanges = {"=", "!=", "<", "<=", ">", ">=", "~", "^"};
      if (text != nullptr && std::find(kRanges.begin(), kRanges.end(), *text) != kRanges.end()) return;
      return Fault(path, "allowed =, !=, <, <=, >, >=, ~ and ^", operand);
    }
    if (operand.is_object()) return Rule(operand, path);
    if (text == nullptr || !ParseSemVer(*text).has_value()) Fault(path, "allowed is a version like 1.2.3", operand);
  }

  void Fractional(const json& arguments, const std::string& path) {
    if (!List(arguments, path, 1, kAny)) return;
    double sum = 0;
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string here = Path(path, i);
      const json& entry = arguments[i];
      if (i == 0 && entry.is_object()) {
        Rule(entry, here);
        continue;
      }
      if (!entry.is_array() || entry.empty() || entry.size() > 2) {
        Fault(here, "allowed is [variant] or [variant, weight]", entry);
        continue;
      }
      Operand(entry[0], Path(here, size_t{0}));
      if (entry.size() < 2) {
        sum += 1;
      } else if (entry[1].is_object()) {
        Rule(entry[1], Path(here, 1));
      } else if (!entry[1].is_number() || entry[1].get<double>() < 0 ||
                 entry[1].get<double>() != std::trunc(entry[1].get<double>())) {
        Fault(Path(here, 1), "allowed is a weight: a whole number from 0", entry[1]);
      } else {
        sum += entry[1].get<double>();
      }
    }
    if (sum > std::numeric_limits<int32_t>::max()) {
      Fault(path, fmt::format("the weights add up to {:.0f}; allowed 2147483647", sum));
    }
  }

  const json* const shared_rules_;
  std::vector<FieldViolation>& faults_;
};

void CollectRefs(const json& rule, std::set<std::string>& names) {
  if (rule.is_object() && rule.size() == 1 && rule.begin().key() == "$ref") {
    if (const std::string* name = Text(rule.begin().value())) names.insert(*name);
  }
  if (!rule.is_structured()) return;
  for (const json& part : rule) CollectRefs(part, names);
}

}  // namespace

void CheckRule(const json& rule, const std::string& path, const json* shared_rules,
               std::vector<FieldViolation>& faults) {
  Checker(shared_rules, faults).Rule(rule, path);
}

// Takes away, again and again, the rules that refer to none that is left: what stays is in a cycle, or leads to one.
void CheckCycles(const json& shared_rules, std::vector<FieldViolation>& faults) {
  std::map<std::string, std::set<std::string>> refs;
  for (const auto& [name, rule] : shared_rules.items()) CollectRefs(rule, refs[name]);
  for (bool changed = true; changed;) {
    changed = std::erase_if(refs, [&](const auto& entry) {
                return std::none_of(entry.second.begin(), entry.second.end(),
                                    [&](const std::string& to) { return refs.contains(to); });
              }) > 0;
  }
  for (const auto& [name, to] : refs) {
    faults.push_back({Path("$evaluators", name), "leads back to itself, or to a rule that does"});
  }
}

}  // namespace sluice::flags::flagd
