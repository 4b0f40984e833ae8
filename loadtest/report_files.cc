#include "loadtest/report_files.h"

#include <fstream>
#include <sstream>

#include "absl/status/statusor.h"
#include "base/status.h"
#include "loadtest/report_html.h"
#include "loadtest/report_json.h"
#include "loadtest/report_markdown.h"
#include "loadtest/report_text.h"

namespace sluice::loadtest {

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return file ? absl::OkStatus() : absl::UnavailableError("cannot write " + path);
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError("cannot read " + path);
  return text.str();
}

absl::Status WriteReports(const std::string& folder, const Run& run, const Summary& summary) {
  SLUICE_RETURN_IF_ERROR(WriteFile(folder + "/report.txt", TextReport(summary)));
  SLUICE_RETURN_IF_ERROR(WriteFile(folder + "/report.md", MarkdownReport(summary)));
  SLUICE_RETURN_IF_ERROR(WriteFile(folder + "/report.json", SummaryJson(summary).dump(1) + "\n"));
  SLUICE_RETURN_IF_ERROR(WriteFile(folder + "/report.html", HtmlReport(summary)));
  for (const std::string& arm : summary.arms) {
    SLUICE_RETURN_IF_ERROR(WriteFile(folder + "/vllm-" + arm + ".json", VllmJson(run, summary, arm).dump() + "\n"));
  }
  return absl::OkStatus();
}

}  // namespace sluice::loadtest
