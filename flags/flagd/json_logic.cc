#include "flags/flagd/json_logic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/strings.h"
#include "flags/flagd/logic_values.h"
#include "flags/flagd/operators.h"
#include "fmt/format.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

// A step for each value, and one for each 64 bytes of text.
int64_t CostOfCopy(const json& value, int64_t budget) {
  if (const auto* text = value.get_ptr<const std::string*>()) return 1 + static_cast<int64_t>(text->size() / 64);
  int64_t cost = 1;
  if (value.is_structured()) {
    for (const json& element : value) {
      if (cost > budget) break;  // too dear already
      cost += CostOfCopy(element, budget - cost);
    }
  }
  return cost;
}

// One evaluation. After the first fault everything is null, quickly.
class Evaluation {
 public:
  Evaluation(const json* shared_rules, const LogicLimits& limits)
      : shared_rules_(shared_rules), limits_(limits), steps_left_(limits.max_steps) {}

  json Run(const json& rule, const json& data);
  const absl::Status& status() const { return status_; }

  using Lazy = json (Evaluation::*)(const json& arguments, const json& data);
  static Lazy FindLazy(std::string_view name);

 private:
  json Apply(const std::string& name, const json& arguments, const json& data);
  json If(const json& arguments, const json& data);
  json And(const json& arguments, const json& data) { return FirstThat(arguments, data, false); }
  json Or(const json& arguments, const json& data) { return FirstThat(arguments, data, true); }
  json FirstThat(const json& arguments, const json& data, bool truthy);
  json Var(const json& arguments, const json& data);
  json Ref(const json& arguments, const json& data);
  json Map(const json& arguments, const json& data);
  json Filter(const json& arguments, const json& data);
  json Reduce(const json& arguments, const json& data);
  json All(const json& arguments, const json& data);
  json None(const json& arguments, const json& data) { return CountOf(arguments, data, 1) == 0; }
  json Some(const json& arguments, const json& data) { return CountOf(arguments, data, 1) > 0; }

  Operands Evaluated(const json& arguments, const json& data);
  // What the first argument evaluates to when that is an array, else an empty one.
  json Subject(const json& arguments, const json& data);
  // Elements of the subject of which the second argument is true; counting ends at `enough`.
  size_t CountOf(const json& arguments, const json& data, size_t enough);
  json Copy(const json& value);
  bool Spend(int64_t steps);
  bool Fail(absl::Status status);

  const json* const shared_rules_;  // null: none
  const LogicLimits limits_;
  int64_t steps_left_;
  int depth_ = 0;
  absl::Status status_;
};

const json& Argument(const json& arguments, size_t i) {
  static const json kNull;
  if (!arguments.is_array()) return i == 0 ? arguments : kNull;
  return i < arguments.size() ? arguments[i] : kNull;
}

size_t ArgumentCount(const json& arguments) { return arguments.is_array() ? arguments.size() : 1; }

bool Evaluation::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
  return false;
}

bool Evaluation::Spend(int64_t steps) {
  steps_left_ -= steps;
  if (steps_left_ >= 0) return status_.ok();
  return Fail(
      absl::ResourceExhaustedError(ToAbsl(fmt::format("the rule takes more than {} steps", limits_.max_steps))));
}

json Evaluation::Copy(const json& value) { return Spend(CostOfCopy(value, steps_left_)) ? value : json(); }

json Evaluation::Run(const json& rule, const json& data) {
  if (!Spend(1)) return nullptr;
  if (!rule.is_structured()) return Copy(rule);
  if (depth_ >= limits_.max_depth) {
    Fail(absl::ResourceExhaustedError(ToAbsl(fmt::format("the rule is deeper than {}", limits_.max_depth))));
    return nullptr;
  }
  ++depth_;
  json result;
  if (rule.is_array()) {
    result = Evaluated(rule, data);
  } else if (rule.size() == 1) {
    result = Apply(rule.begin().key(), rule.begin().value(), data);
  } else {
    result = Copy(rule);  // an operator stands alone in its object; this is a value
  }
  --depth_;
  return result;
}

json Evaluation::Apply(const std::string& name, const json& arguments, const json& data) {
  if (const Lazy lazy = FindLazy(name)) return (this->*lazy)(arguments, data);
  const Operator run = FindOperator(name);
  if (run == nullptr) {
    Fail(absl::InvalidArgumentError(ToAbsl(fmt::format("there is no operator \"{}\"", name))));
    return nullptr;
  }
  Operands operands = Evaluated(arguments, data);
  // An operator's only argument may be an expression that makes the list of them.
  if (arguments.is_object() && operands.size() == 1 && operands[0].is_array()) {
    const json list = std::move(operands[0]);
    operands.assign(list.begin(), list.end());
  }
  if (!status_.ok()) return nullptr;
  OperatorCall call{std::move(operands), data, limits_.max_text_bytes, {}};
  json result = run(call);
  if (!call.error.empty()) {
    Fail(absl::InvalidArgumentError(ToAbsl(fmt::format("\"{}\" {}", name, call.error))));
    return nullptr;
  }
  Spend(CostOfCopy(result, steps_left_));
  return result;
}

Operands Evaluation::Evaluated(const json& arguments, const json& data) {
  Operands operands;
  const size_t count = ArgumentCount(arguments);
  for (size_t i = 0; i < count && status_.ok(); ++i) operands.push_back(Run(Argument(arguments, i), data));
  return operands;
}

json Evaluation::If(const json& arguments, const json& data) {
  const size_t count = ArgumentCount(arguments);
  size_t i = 0;
  for (; i + 1 < count; i += 2) {
    if (IsTruthy(Run(Argument(arguments, i), data))) return Run(Argument(arguments, i + 1), data);
    if (!status_.ok()) return nullptr;
  }
  return i < count ? Run(Argument(arguments, i), data) : json();
}

json Evaluation::FirstThat(const json& arguments, const json& data, bool truthy) {
  json value;
  for (size_t i = 0; i < ArgumentCount(arguments) && status_.ok(); ++i) {
    value = Run(Argument(arguments, i), data);
    if (IsTruthy(value) == truthy) break;
  }
  return value;
}

json Evaluation::Var(const json& arguments, const json& data) {
  Operands operands = Evaluated(arguments, data);
  if (operands.size() == 1 && operands[0].is_array() && !operands[0].empty()) operands[0] = json(operands[0][0]);
  const json path = operands.empty() || operands[0].is_array() ? json() : std::move(operands[0]);
  if (const json* value = FindVariable(path, data)) return Copy(*value);
  return operands.size() > 1 ? std::move(operands[1]) : json();
}

// Looked up when it is run: no rule grows by what it refers to, and a cycle ends at max_depth.
json Evaluation::Ref(const json& arguments, const json& data) {
  const auto* name = arguments.get_ptr<const std::string*>();
  if (name != nullptr && shared_rules_ != nullptr) {
    const auto it = shared_rules_->find(*name);
    if (it != shared_rules_->end()) return Run(*it, data);
  }
  Fail(absl::InvalidArgumentError(ToAbsl(fmt::format("there is no shared rule \"{}\"", name == nullptr ? "" : *name))));
  return nullptr;
}

json Evaluation::Subject(const json& arguments, const json& data) {
  json subject = Run(Argument(arguments, 0), data);
  return subject.is_array() ? subject : json::array();
}

json Evaluation::Map(const json& arguments, const json& data) {
  json result = Subject(arguments, data);
  for (json& element : result) element = Run(Argument(arguments, 1), element);
  return result;
}

json Evaluation::Filter(const json& arguments, const json& data) {
  json subject = Subject(arguments, data), result = json::array();
  for (json& element : subject) {
    if (IsTruthy(Run(Argument(arguments, 1), element))) result.push_back(std::move(element));
  }
  return result;
}

json Evaluation::Reduce(const json& arguments, const json& data) {
  json scope = {{"current", nullptr}, {"accumulator", Run(Argument(arguments, 2), data)}};
  json subject = Subject(arguments, data);
  for (json& element : subject) {
    if (!status_.ok()) break;
    scope["current"] = std::move(element);
    scope["accumulator"] = Run(Argument(arguments, 1), scope);
  }
  return std::move(scope["accumulator"]);
}

size_t Evaluation::CountOf(const json& arguments, const json& data, size_t enough) {
  size_t count = 0;
  const json subject = Subject(arguments, data);
  for (const json& element : subject) {
    if (count >= enough || !status_.ok()) break;
    count += IsTruthy(Run(Argument(arguments, 1), element)) ? 1 : 0;
  }
  return count;
}

json Evaluation::All(const json& arguments, const json& data) {
  const json subject = Subject(arguments, data);
  return !subject.empty() && std::all_of(subject.begin(), subject.end(), [&](const json& element) {
    return status_.ok() && IsTruthy(Run(Argument(arguments, 1), element));
  });
}

Evaluation::Lazy Evaluation::FindLazy(std::string_view name) {
  struct Named {
    std::string_view name;
    Lazy run;
  };
  static constexpr std::array kLazy = std::to_array<Named>({
      {"var", &Evaluation::Var},
      {"$ref", &Evaluation::Ref},
      {"if", &Evaluation::If},
      {"?:", &Evaluation::If},
      {"and", &Evaluation::And},
      {"or", &Evaluation::Or},
      {"map", &Evaluation::Map},
      {"filter", &Evaluation::Filter},
      {"reduce", &Evaluation::Reduce},
      {"all", &Evaluation::All},
      {"none", &Evaluation::None},
      {"some", &Evaluation::Some},
  });
  const auto it = std::find_if(kLazy.begin(), kLazy.end(), [&](const Named& n) { return n.name == name; });
  return it == kLazy.end() ? nullptr : it->run;
}

bool IsFinite(const json& value) {
  if (value.is_number_float()) return std::isfinite(value.get<double>());
  return !value.is_structured() || std::all_of(value.begin(), value.end(), IsFinite);
}

}  // namespace

absl::StatusOr<json> ApplyLogic(const json& rule, const json& data, const json* shared_rules,
                                const LogicLimits& limits) {
  Evaluation evaluation(shared_rules, limits);
  json result = evaluation.Run(rule, data);
  if (!evaluation.status().ok()) return evaluation.status();
  if (!IsFinite(result)) return absl::InvalidArgumentError("the result is infinite, or no number");
  return result;
}

bool IsOperator(std::string_view name) {
  return Evaluation::FindLazy(name) != nullptr || FindOperator(name) != nullptr;
}

}  // namespace sluice::flags::flagd
