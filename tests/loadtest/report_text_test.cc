#include "loadtest/report_text.h"

#include <gmock/gmock.h>

#include <sstream>

#include "base/strings.h"
#include "loadtest/report_format.h"
#include "loadtest/report_markdown.h"
#include "tests/loadtest/example_summary.h"

namespace sluice::loadtest {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

Summary Hostile() {
  Summary summary = ExampleSummary(2);
  summary.scenario = summary.description = kHostile;
  summary.notes.push_back(kHostile);
  summary.invalid.push_back(kHostile);
  summary.environment[kHostile] = kHostile;
  summary.checks.front().text = std::string(200, 'x') + kHostile;
  summary.cells.front().arm = kHostile;
  summary.cells.front().error_examples[kHostile] = kHostile;
  summary.cells.front().errors[kHostile] = 3;
  summary.cells.front().pipelines[kHostile] = 3;
  return summary;
}

TEST(TextReport, SaysWhatWasMeasured) {
  const std::string text = TextReport(ExampleSummary(7));
  EXPECT_THAT(text, HasSubstr("shared-prefix (measure), seed 42"));
  EXPECT_THAT(text, HasSubstr("MISSED: 3 checks: 2 reached (1 of them beaten), 1 missed, 0 without a verdict"));
  EXPECT_THAT(text,
              ContainsRegex("beaten +ttft ttft_p95_ms, ratio to baseline, ≤ 0.9 +0.776 \\[0.741, 0.813\\] +0.9 "));
  EXPECT_THAT(text, ContainsRegex("e2e_p99_ms ≤ 2000 +1210 \\[1101, ∞\\]"));
  EXPECT_THAT(text, ContainsRegex("ttft_p95_ms +ttft +baseline +118 +152 +0.776 \\[0.741, 0.813\\] +ttft\n"));
  EXPECT_THAT(text, ContainsRegex("output_tokens_per_s +ttft +baseline +64 +64 .* no difference shown\n"));
  EXPECT_THAT(text, ContainsRegex("itl_p99_ms +ttft +baseline +– +– +– +not measured\n"));
  EXPECT_THAT(text, ContainsRegex("2 req/s +baseline +5 +50 +100 +97 +0 +3 "));
  EXPECT_THAT(text, ContainsRegex("2 req/s +TTFT +baseline +97 +"));
  EXPECT_THAT(text, ContainsRegex("RESOURCE_EXHAUSTED +[0-9]+ +queue is full"));
  EXPECT_THAT(text, HasSubstr("admission_rejected"));
  EXPECT_THAT(text, HasSubstr("  - baseline: breaking point at 14 requests/s"));
  EXPECT_EQ(Lines(text).back(), Lines(text).at(2)) << "the verdict again, above the prompt";
}

TEST(TextReport, RepeatedLabelsAreLeftOut) {
  const std::string text = TextReport(ExampleSummary(2));
  EXPECT_THAT(text, ContainsRegex("\n  2 req/s +TTFT +baseline .*\n {10,}ttft +97 .*\n {10,}ITL +baseline "));
}

TEST(TextReport, FitsATerminal) {
  for (const Summary& summary : {ExampleSummary(7), Hostile()}) {
    for (const std::string& line : Lines(TextReport(summary))) EXPECT_LE(Columns(line), 120u) << line;
  }
}

TEST(TextReport, InvalidRunSaysSoFirst) {
  Summary summary = ExampleSummary(1);
  summary.invalid = {"client-limited: ttft, block 2", std::string(300, 'w')};
  const std::vector<std::string> lines = Lines(TextReport(summary));
  EXPECT_EQ(lines.at(0), std::string(120, '!'));
  EXPECT_THAT(lines.at(1), StartsWith("!!  INVALID: "));
  EXPECT_EQ(lines.at(2), "!!  - client-limited: ttft, block 2");
  EXPECT_THAT(TextReport(summary), Not(HasSubstr("MISSED")));
}

TEST(TextReport, EmptyRun) {
  const std::string text = TextReport(Summary{.scenario = "nothing", .kind = "measure"});
  EXPECT_THAT(text, HasSubstr("Nothing was measured."));
  EXPECT_THAT(text, Not(HasSubstr("nan")));
}

TEST(TextReport, HostileTextCannotDriveTheTerminal) {
  const std::string text = TextReport(Hostile());
  EXPECT_TRUE(IsValidUtf8(text));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find("\xe2\x80\xae"), std::string::npos);
}

TEST(TextReport, ChecksWithoutAVerdictMakeItInvalid) {
  Summary summary = ExampleSummary(1);
  summary.checks = {{"ttft cpu_percent ≤ 80", {}, 80, Verdict::kInvalid, "cpu_percent was not measured"}};
  EXPECT_THAT(TextReport(summary), HasSubstr("INVALID: 1 checks: 0 reached (0 of them beaten), 0 missed, 1 without"));
  EXPECT_THAT(TextReport(summary),
              ContainsRegex("invalid +ttft cpu_percent ≤ 80 +– +80 +cpu_percent was not measured"));
}

TEST(MarkdownReport, HasEverythingAndFormulas) {
  const std::string text = MarkdownReport(ExampleSummary(3));
  EXPECT_THAT(text, StartsWith("# sluice-bench: shared-prefix (measure), seed 42\n"));
  EXPECT_THAT(text, HasSubstr("**MISSED**"));
  EXPECT_THAT(text, HasSubstr("| beaten | ttft ttft_p95_ms, ratio to baseline, ≤ 0.9 | 0.776 [0.741, 0.813] | 0.9 |"));
  EXPECT_THAT(text, HasSubstr("## Environment"));
  EXPECT_THAT(text, HasSubstr("| model | SmolLM2-135M-Instruct.Q8_0.gguf |"));
  EXPECT_THAT(text, HasSubstr("## Formulas"));
  for (const auto& [metric, formula] : MetricFormulas()) EXPECT_THAT(text, HasSubstr("| " + metric + " | "));
  EXPECT_THAT(text, HasSubstr("| server queue |")) << "metrics that the terminal has no room for";
}

TEST(MarkdownReport, TablesKeepTheirShape) {
  for (const Summary& summary : {ExampleSummary(3), Hostile()}) {
    size_t columns = 0;
    for (const std::string& line : Lines(MarkdownReport(summary))) {
      if (!line.starts_with("|")) {
        columns = 0;
        continue;
      }
      size_t bars = 0;
      for (size_t i = 0; i < line.size(); ++i) bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\') ? 1 : 0;
      if (columns == 0) columns = bars;
      EXPECT_EQ(bars, columns) << line;
    }
  }
}

TEST(MarkdownReport, EscapesMarkup) {
  const std::string text = MarkdownReport(Hostile());
  EXPECT_THAT(text, Not(HasSubstr("<script")));
  EXPECT_THAT(text, HasSubstr("&lt;script>alert('x')&lt;/script> &amp; \"a\\|b\""));
  EXPECT_THAT(text, HasSubstr("\\]( �\\`\\*"));
  EXPECT_TRUE(IsValidUtf8(text));
}

TEST(MarkdownReport, InvalidRunAndEmptyRun) {
  Summary summary{.scenario = "nothing", .kind = "measure"};
  summary.invalid = {"the run did not end"};
  const std::string text = MarkdownReport(summary);
  EXPECT_THAT(text, HasSubstr("> **INVALID: This run must not be believed"));
  EXPECT_THAT(text, HasSubstr("> - the run did not end\n"));
  EXPECT_THAT(text, HasSubstr("Nothing was measured."));
}

}  // namespace
}  // namespace sluice::loadtest
