#include "base/args.h"

#include <charconv>

#include "base/edit_distance.h"
#include "fmt/format.h"

namespace sluice {
namespace {

const Option* Find(const Program& program, const Command& command, std::string_view name) {
  for (const std::vector<Option>* options : {&command.options, &program.options}) {
    for (const Option& o : *options) {
      if (o.name == name) return &o;
    }
  }
  return nullptr;
}

std::string Nearest(const Program& program, const Command& command, std::string_view name) {
  std::string best;
  size_t distance = 4;
  for (const std::vector<Option>* options : {&command.options, &program.options}) {
    for (const Option& o : *options) {
      if (const size_t d = EditDistance(o.name, name); d < distance) {
        distance = d;
        best = o.name;
      }
    }
  }
  return best.empty() ? "" : fmt::format("; did you mean {}?", best);
}

std::string Row(const Option& o) {
  return fmt::format("  {:<24} {}\n", o.value.empty() ? o.name : o.name + " " + o.value, o.help);
}

}  // namespace

std::string Args::Get(std::string_view name, std::string_view fallback) const {
  const auto it = values_.find(name);
  return it == values_.end() ? std::string(fallback) : it->second.back();
}

std::vector<std::string> Args::All(std::string_view name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? std::vector<std::string>() : it->second;
}

absl::StatusOr<std::optional<int64_t>> Args::Int(std::string_view name) const {
  if (!Has(name)) return std::optional<int64_t>();
  const std::string text = Get(name);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return absl::InvalidArgumentError(fmt::format("{} takes a whole number, got '{}'", name, text));
  }
  return std::optional<int64_t>(value);
}

absl::StatusOr<std::optional<double>> Args::Number(std::string_view name) const {
  if (!Has(name)) return std::optional<double>();
  const std::string text = Get(name);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return absl::InvalidArgumentError(fmt::format("{} takes a number, got '{}'", name, text));
  }
  return std::optional<double>(value);
}

absl::StatusOr<Args> ParseArgs(const Program& program, const Command& command,
                               const std::vector<std::string>& arguments) {
  Args args;
  bool options_ended = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& a = arguments[i];
    if (options_ended || !a.starts_with("--")) {
      args.operands_.push_back(a);
      continue;
    }
    if (a == "--") {
      options_ended = true;
      continue;
    }
    const size_t equals = a.find('=');
    const std::string name = a.substr(0, equals);
    const Option* option = Find(program, command, name);
    if (option == nullptr) {
      return absl::InvalidArgumentError(fmt::format("unknown option {}{}", name, Nearest(program, command, name)));
    }
    std::string value;
    if (equals != std::string::npos) {
      if (option->value.empty()) return absl::InvalidArgumentError(fmt::format("{} takes no value", name));
      value = a.substr(equals + 1);
    } else if (!option->value.empty()) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(fmt::format("{} needs a value: {}", name, option->value));
      }
      value = arguments[++i];
    }
    args.values_[name].push_back(std::move(value));
  }
  return args;
}

std::string HelpOf(const Program& program, const Command& command) {
  std::string text = fmt::format("{0} {1}: {2}\n\nusage: {0} {1} [options] {3}\n", program.name, command.name,
                                 command.summary, command.operands);
  if (!command.options.empty()) {
    text += "\n";
    for (const Option& o : command.options) text += Row(o);
  }
  text += "\n";
  for (const Option& o : program.options) text += Row(o);
  if (!command.examples.empty()) text += "\nexamples:\n" + command.examples;
  return text;
}

}  // namespace sluice
