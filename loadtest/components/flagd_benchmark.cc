// Flags defined in flagd's JSON: what one evaluation costs beside a native flag (gate/one_flag), and reading a
// document.
#include <memory>
#include <string>

#include "base/check.h"
#include "flags/flag_set.h"
#include "flags/flagd/definitions.h"
#include "fmt/format.h"
#include "loadtest/components/measure.h"

namespace sluice::components {
namespace {

std::string Document(int flags, std::string_view targeting) {
  std::string document = R"({"flags": {)";
  for (int i = 0; i < flags; ++i) {
    document += fmt::format(
        R"({}"flag-{:04}": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "on",
        "targeting": {}}})",
        i == 0 ? "" : ",", i, targeting);
  }
  return document + "}}";
}

flags::flagd::Definitions Parse(const std::string& document) {
  auto definitions = flags::flagd::ParseDefinitions(document, {});
  SLUICE_CHECK(definitions.ok(), "the document is good");
  return *std::move(definitions);
}

constexpr std::string_view kNone = "{}";
constexpr std::string_view kFractional = R"({"fractional": [["on", 50], ["off", 50]]})";
constexpr std::string_view kRule =
    R"({"if": [{"and": [{"in": ["@example.com", {"var": "user"}]}, {"sem_ver": [{"var": "tenant"}, ">=", "1.0.0"]}]},
        "off", "on"]})";

void Evaluate(benchmark::State& state, std::string_view targeting) {
  const auto set = *flags::FlagSet::Create({.flags = Parse(Document(1, targeting)).flags}, 1);
  std::string key = "user-0000";
  int next = 0;
  Measure(state, [&] {
    fmt::format_to(key.begin() + 5, "{:04}", next++ % 10'000);
    benchmark::DoNotOptimize(
        set->Evaluate("flag-0000", {.targeting_key = key, .tenant = "1.2.3", .user = "alice@example.com"}));
  });
}
BENCHMARK_CAPTURE(Evaluate, none, kNone)->Name("flagd/no_targeting");
BENCHMARK_CAPTURE(Evaluate, fractional, kFractional)->Name("flagd/fractional");
BENCHMARK_CAPTURE(Evaluate, rule, kRule)->Name("flagd/rule");

void ReadDocument(benchmark::State& state) {
  const int flags = static_cast<int>(state.range(0));
  const std::string document = Document(flags, kRule);
  Measure(
      state, [&] { benchmark::DoNotOptimize(Parse(document)); }, /*items=*/flags);
}
BENCHMARK(ReadDocument)->Name("flagd/read_document")->Arg(1000);

}  // namespace
}  // namespace sluice::components
