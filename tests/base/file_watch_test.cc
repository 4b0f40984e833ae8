#include "base/file_watch.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::IsOk;
using ::testing::ElementsAre;

constexpr Duration kNever = std::chrono::hours(10);

// Watches files by name inside a folder, and keeps what the callback was told and saw.
class FileWatchTest : public testing::Test {
 protected:
  // The poll never comes, so that inotify alone must do it.
  void Watch(const std::vector<std::string>& names, Duration settle = std::chrono::milliseconds(1),
             Duration poll = kNever) {
    FileWatch::Options options{.paths = {}, .settle = settle, .poll = poll};
    for (const std::string& name : names) options.paths.push_back(folder_ / name);
    auto watch = FileWatch::Start(options, [this](const std::vector<std::string>& changed) { OnChange(changed); });
    ASSERT_THAT(watch, IsOk());
    watch_ = *std::move(watch);
  }

  // Waits until a callback found `content` ("-": no such file) in the file.
  void Await(const std::string& name, const std::string& content) {
    MutexLock lock(mu_);
    while (seen_[name] != content) {
      ASSERT_TRUE(changed_.WaitFor(mu_, std::chrono::seconds(20)))
          << name << " is '" << seen_[name] << "', should become '" << content << "'";
    }
  }

  std::function<void(const std::string& content)> after_ = [](const auto&) {};  // what a callback has seen; set first

  std::vector<std::vector<std::string>> calls() {
    MutexLock lock(mu_);
    return calls_;
  }

  test::TempFolder folder_;

 private:
  void OnChange(const std::vector<std::string>& changed) {
    std::vector<std::string> names, contents;
    for (const std::string& path : changed) {
      names.push_back(fs::path(path).lexically_relative(folder_.path()).string());
      const auto text = ReadTextFile(path);
      contents.push_back(text.ok() ? *text : "-");
      after_(contents.back());
    }
    MutexLock lock(mu_);
    for (size_t i = 0; i < names.size(); ++i) seen_[names[i]] = contents[i];
    calls_.push_back(names);
    changed_.SignalAll();
  }

  Mutex mu_;
  CondVar changed_;
  std::map<std::string, std::string> seen_ ABSL_GUARDED_BY(mu_);
  std::vector<std::vector<std::string>> calls_ ABSL_GUARDED_BY(mu_);

 protected:
  std::unique_ptr<FileWatch> watch_;  // stops before the others go
};

TEST_F(FileWatchTest, PlainWrites) {
  folder_.Write("a", "1");
  Watch({"a"});
  for (const std::string content : {"2", "", "22", "3"}) {
    folder_.Write("a", content);
    Await("a", content);
  }
}

TEST_F(FileWatchTest, RenameOverTheFile) {
  folder_.Write("a", "1");
  Watch({"a"});
  for (const std::string content : {"2", "3", "4"}) {
    folder_.Write("a.tmp", content);
    fs::rename(folder_ / "a.tmp", folder_ / "a");
    Await("a", content);
  }
  // As vi does: the old file moves away, a new one is written under its name.
  fs::rename(folder_ / "a", folder_ / "a~");
  folder_.Write("a", "5");
  Await("a", "5");
}

TEST_F(FileWatchTest, SameContentIsSilent) {
  folder_.Write("a", "same");
  folder_.Write("b", "1");
  Watch({"a", "b"});
  folder_.Write("a", "same");
  folder_.Write("a.tmp", "same");
  fs::rename(folder_ / "a.tmp", folder_ / "a");
  fs::last_write_time(folder_ / "a", fs::file_time_type::clock::now());
  folder_.Write("b", "2");
  Await("b", "2");
  EXPECT_THAT(calls(), ElementsAre(ElementsAre("b")));
}

TEST_F(FileWatchTest, FilesAndFoldersThatComeAndGo) {
  Watch({"x/y/a"});
  fs::create_directories(folder_ / "x/y");
  folder_.Write("x/y/a", "1");
  Await("x/y/a", "1");
  fs::remove(folder_ / "x/y/a");
  Await("x/y/a", "-");
  folder_.Write("x/y/a", "2");
  Await("x/y/a", "2");
  fs::rename(folder_ / "x", folder_ / "away");
  Await("x/y/a", "-");
  folder_.Write("away/y/a", "3");
  fs::rename(folder_ / "away", folder_ / "x");
  Await("x/y/a", "3");
  fs::remove_all(folder_ / "x");
  Await("x/y/a", "-");
}

TEST_F(FileWatchTest, ConfigMapSwapsItsDataLink) {
  const auto publish = [&](const std::string& version, const std::string& content) {
    fs::create_directory(folder_ / (".." + version));
    folder_.Write(".." + version + "/flags.yaml", content);
    fs::create_symlink(".." + version, folder_ / "..data_tmp");
    std::string old = fs::is_symlink(folder_ / "..data") ? fs::read_symlink(folder_ / "..data").string() : "";
    fs::rename(folder_ / "..data_tmp", folder_ / "..data");
    if (!old.empty()) fs::remove_all(folder_ / old);
  };
  publish("v1", "1");
  fs::create_symlink("..data/flags.yaml", folder_ / "flags.yaml");
  Watch({"flags.yaml"});
  for (const std::string content : {"2", "3", "4"}) {
    publish("v" + content, content);
    Await("flags.yaml", content);
  }
  folder_.Write("..v4/flags.yaml", "written through");
  Await("flags.yaml", "written through");
}

TEST_F(FileWatchTest, LinksOutsideTheFolder) {
  test::TempFolder elsewhere;
  elsewhere.Write("target", "1");
  fs::create_symlink(elsewhere.path(), folder_ / "link");
  fs::create_symlink("link/../" + elsewhere.path().filename().string() + "/target", folder_ / "a");
  Watch({"a"});
  elsewhere.Write("target", "2");
  Await("a", "2");
}

// What a link led to before is still there, and tells nothing.
TEST_F(FileWatchTest, LinksThatAreTurnedElsewhere) {
  for (const std::string version : {"1", "2", "3"}) {
    fs::create_directory(folder_ / version);
    folder_.Write(version + "/f", version);
  }
  const auto turn = [&](const std::string& link, const std::string& target) {
    fs::create_symlink(target, folder_ / "tmp");
    fs::rename(folder_ / "tmp", folder_ / link);
  };
  turn("folder", "1");
  turn("file", "folder/f");
  Watch({"file"});
  turn("folder", "2");
  Await("file", "2");
  turn("folder", "1");
  Await("file", "1");
  turn("file", "3/f");
  Await("file", "3");
  folder_.Write("3/f", "4");
  Await("file", "4");
}

// As a file that is mounted alone: its folder does not see the write.
TEST_F(FileWatchTest, WritesUnderAnotherName) {
  test::TempFolder elsewhere;
  folder_.Write("a", "1");
  fs::create_hard_link(folder_ / "a", elsewhere / "b");
  Watch({"a"});
  elsewhere.Write("b", "2");
  Await("a", "2");
}

TEST_F(FileWatchTest, ChangesDuringACallbackAreReported) {
  folder_.Write("a", "0");
  after_ = [this](const std::string& content) {
    if (content.size() < 5) folder_.Write("a", content + "+");
  };
  Watch({"a"});
  folder_.Write("a", "1");
  Await("a", "1++++");
}

TEST_F(FileWatchTest, LoopOfLinksPipeAndFolderAreNotFiles) {
  fs::create_symlink("b", folder_ / "a");
  fs::create_symlink("a", folder_ / "b");
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  fs::create_directory(folder_ / "folder");
  Watch({"a", "pipe", "folder"});
  for (const std::string name : {"a", "pipe", "folder"}) {
    fs::remove(folder_ / name);
    folder_.Write(name, "1");
    Await(name, "1");
  }
}

TEST_F(FileWatchTest, PollFindsWhatInotifyDoesNotTell) {
  folder_.Write("a", "1");
  Watch({"a"}, std::chrono::milliseconds(1), std::chrono::milliseconds(20));
  const OwnedFd file(open((folder_ / "a").c_str(), O_RDWR | O_CLOEXEC));
  void* const page = mmap(nullptr, 1, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  ASSERT_NE(page, MAP_FAILED);
  std::memcpy(page, "2", 1);
  Await("a", "2");
  munmap(page, 1);
}

TEST_F(FileWatchTest, ComparesFirstBytesAndSize) {
  folder_.Write("a", "12345");
  folder_.Write("b", "1");
  FileWatch::Options options{
      .paths = {folder_ / "a", folder_ / "b"}, .settle = std::chrono::milliseconds(1), .poll = kNever};
  options.compare_bytes = 3;
  Mutex mu;
  CondVar called;
  std::vector<std::string> all;
  const auto watch = FileWatch::Start(options, [&](const std::vector<std::string>& changed) {
    MutexLock lock(mu);
    all.insert(all.end(), changed.begin(), changed.end());
    called.SignalAll();
  });
  ASSERT_THAT(watch, IsOk());
  const auto await = [&](size_t calls) {
    MutexLock lock(mu);
    while (all.size() < calls) ASSERT_TRUE(called.WaitFor(mu, std::chrono::seconds(20)));
  };
  folder_.Write("a", "12399");  // the same, as far as anybody looks
  folder_.Write("b", "2");
  await(1);
  folder_.Write("a", "123456");
  await(2);
  MutexLock lock(mu);
  EXPECT_THAT(all, ElementsAre(folder_ / "b", folder_ / "a"));
}

// The last content is always delivered, and bursts are seen in few looks.
TEST_F(FileWatchTest, StormOfChanges) {
  folder_.Write("a", "start");
  Watch({"a"}, std::chrono::milliseconds(10));
  constexpr int kRounds = 5, kWrites = 200;
  for (int round = 0; round < kRounds; ++round) {
    std::string content;
    for (int i = 0; i < kWrites; ++i) {
      content = std::to_string(round) + "/" + std::to_string(i);
      folder_.Write(i % 2 == 0 ? "a" : "tmp", content);
      if (i % 2 != 0) fs::rename(folder_ / "tmp", folder_ / "a");
    }
    Await("a", content);
  }
  EXPECT_LT(calls().size(), size_t{kRounds * kWrites / 4});
}

TEST_F(FileWatchTest, StopsAtOnce) {
  Watch({"a"}, /*settle=*/kNever);
  folder_.Write("a", "1");
  watch_.reset();  // neither the poll nor the settling is waited for: the test would time out
  EXPECT_THAT(calls(), ElementsAre());
}

}  // namespace
}  // namespace sluice
