// Command-line options of our tools: declared in a table, so that help and parsing cannot disagree.
// Plain values; thread-compatible.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

struct Option {
  std::string name;   // "--max-tokens"
  std::string value;  // placeholder ("N"); empty: a switch
  std::string help;   // one line
};

struct Command {
  std::string name;      // "generate"
  std::string operands;  // "PROMPT"
  std::string summary;   // one line for the overview
  std::vector<Option> options;
  std::string examples;  // whole lines
};

// A program with subcommands, and the options that all of them know.
struct Program {
  std::string name;  // "sluicectl"
  std::vector<Option> options;
};

// What was given. Repeated options keep every value.
class Args {
 public:
  bool Has(std::string_view name) const { return values_.find(name) != values_.end(); }
  std::string Get(std::string_view name, std::string_view fallback = "") const;
  std::vector<std::string> All(std::string_view name) const;
  // INVALID_ARGUMENT when the value is not a number of that kind.
  absl::StatusOr<std::optional<int64_t>> Int(std::string_view name) const;
  absl::StatusOr<std::optional<double>> Number(std::string_view name) const;
  const std::vector<std::string>& operands() const { return operands_; }

 private:
  friend absl::StatusOr<Args> ParseArgs(const Program& program, const Command& command,
                                        const std::vector<std::string>& arguments);
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> operands_;
};

// INVALID_ARGUMENT naming the unknown option (and the nearest one), or the one that lacks its value. "--" ends options.
absl::StatusOr<Args> ParseArgs(const Program& program, const Command& command,
                               const std::vector<std::string>& arguments);

std::string HelpOf(const Program& program, const Command& command);

}  // namespace sluice
