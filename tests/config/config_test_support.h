// Files and environments for the tests of config/.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/check.h"
#include "config/config_loader.h"

namespace sluice::config {

// A file in a folder of its own, removed at the end.
class TestFile {
 public:
  explicit TestFile(const std::string& text) {
    std::string folder = (std::filesystem::temp_directory_path() / "sluice_config_XXXXXX").string();
    SLUICE_CHECK(mkdtemp(folder.data()) != nullptr, "no temporary folder");
    folder_ = folder;
    Write(text);
  }
  ~TestFile() { std::filesystem::remove_all(folder_); }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;

  void Write(const std::string& text) const { std::ofstream(path(), std::ios::binary) << text; }
  std::string path() const { return (folder_ / "f.yaml").string(); }

  // The lines of a message, with this file's name shortened to "f.yaml".
  std::vector<std::string> Lines(const absl::Status& status) const {
    std::vector<std::string> out;
    std::string text(status.message());
    for (size_t at; (at = text.find(path())) != std::string::npos;) text.replace(at, path().size(), "f.yaml");
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      out.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    return out;
  }

 private:
  std::filesystem::path folder_;
};

using TestVariables = std::map<std::string, std::string>;

// `variables` must outlive the result.
inline Environment Env(const TestVariables& variables) {
  return [&variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

inline std::vector<std::string> NamesOf(const TestVariables& variables) {
  std::vector<std::string> out;
  for (const auto& [name, value] : variables) out.push_back(name);
  return out;
}

}  // namespace sluice::config
