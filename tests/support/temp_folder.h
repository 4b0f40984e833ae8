// A folder of one test, removed at its end.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/check.h"

namespace sluice::test {

class TempFolder {
 public:
  TempFolder() {
    std::string folder = (std::filesystem::temp_directory_path() / "sluice_test_XXXXXX").string();
    SLUICE_CHECK(mkdtemp(folder.data()) != nullptr, "no temporary folder");
    path_ = folder;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace sluice::test
