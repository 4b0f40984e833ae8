#include "loadtest/report_files.h"

#include "base/files.h"
#include "base/status.h"
#include "loadtest/report_html.h"
#include "loadtest/report_json.h"
#include "loadtest/report_markdown.h"
#include "loadtest/report_text.h"

namespace sluice::loadtest {

absl::Status WriteReports(const std::string& folder, const Run& run, const Summary& summary) {
  SLUICE_RETURN_IF_ERROR(WriteTextFile(folder + "/report.txt", TextReport(summary)));
  SLUICE_RETURN_IF_ERROR(WriteTextFile(folder + "/report.md", MarkdownReport(summary)));
  SLUICE_RETURN_IF_ERROR(WriteTextFile(folder + "/report.json", SummaryJson(summary).dump(1) + "\n"));
  SLUICE_RETURN_IF_ERROR(WriteTextFile(folder + "/report.html", HtmlReport(summary)));
  for (const std::string& arm : summary.arms) {
    SLUICE_RETURN_IF_ERROR(WriteTextFile(folder + "/vllm-" + arm + ".json", VllmJson(run, summary, arm).dump() + "\n"));
  }
  return absl::OkStatus();
}

}  // namespace sluice::loadtest
