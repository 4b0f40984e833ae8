#include "state/file_store.h"

#include <filesystem>
#include <string>

#include "base/files.h"
#include "gmock/gmock.h"
#include "tests/state/store_contract.h"
#include "tests/state/watch_log.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_folder.h"

namespace sluice::state {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using test::IsOk;
using test::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class FileWorld final : public StoreWorld {
 public:
  std::shared_ptr<StateStore> Connect() override {
    auto store = FileStore::Open(folder_ / "state");
    EXPECT_THAT(store, IsOk());
    return *std::move(store);
  }

 private:
  const test::TempFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(File, StoreContract, testing::Values([] { return std::make_unique<FileWorld>(); }));

class FileStoreTest : public testing::Test {
 protected:
  std::unique_ptr<FileStore> MustOpen() {
    auto store = FileStore::Open(folder_.path().string());
    EXPECT_THAT(store, IsOk());
    return *std::move(store);
  }
  absl::Status Open() { return FileStore::Open(folder_.path().string()).status(); }

  const test::TempFolder folder_;
};

TEST_F(FileStoreTest, ContentAndRevisionSurviveRestarts) {
  uint64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    const auto store = MustOpen();
    EXPECT_EQ(store->List("")->revision, last);
    const auto put = store->Put("a", std::to_string(i), 0);
    ASSERT_THAT(put, IsOk());
    EXPECT_GT(*put, last);
    EXPECT_EQ(MustOpen()->Get("a")->value, std::to_string(i));
    last = *store->Delete("a", *put);
    EXPECT_GT(last, *put);
  }
}

TEST_F(FileStoreTest, MakesItsFolderForItselfAlone) {
  const std::string folder = folder_ / "x/y";
  ASSERT_THAT(FileStore::Open(folder), IsOk());
  EXPECT_EQ(fs::status(folder).permissions(), fs::perms::owner_all);
  ASSERT_THAT((*FileStore::Open(folder))->Put("a", "secret", 0), IsOk());
  EXPECT_EQ(fs::status(folder + "/state").permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(FileStoreTest, AFolderThatCannotBeUsedIsRefused) {
  folder_.Write("file", "");
  EXPECT_THAT(FileStore::Open(folder_ / "file"),
              StatusIs(StatusCode::kUnavailable, AllOf(HasSubstr("file"), HasSubstr("Not a directory"))));
  EXPECT_THAT(FileStore::Open(folder_ / "file/below"), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(FileStore::Open(""), StatusIs(StatusCode::kUnavailable));
}

// Nothing is lost, nothing is invented: an operator chooses, and the previous copy is one of the choices.
TEST_F(FileStoreTest, ADamagedFileIsRefusedAndThePreviousCopyIsGood) {
  const auto first = MustOpen()->Put("a", "1", 0);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(MustOpen()->Put("a", "2", *first), IsOk());
  const std::string good = *ReadTextFile(folder_ / "state");
  std::string flipped = good;
  flipped[good.size() - 2] ^= 1;
  for (const std::string& bad : {flipped, good.substr(0, good.size() / 2), std::string(), std::string(200, '\0')}) {
    folder_.Write("state", bad);
    EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss,
                                 AllOf(HasSubstr(folder_ / "state"), HasSubstr(folder_ / "state.previous"))));
    EXPECT_EQ(*ReadTextFile(folder_ / "state"), bad);
  }
  fs::remove(folder_ / "state");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("is missing")));
  fs::rename(folder_ / "state.previous", folder_ / "state");
  EXPECT_EQ(MustOpen()->Get("a")->value, "1");
  fs::remove(folder_ / "state");
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(FileStoreTest, StrangeFilesAreRefused) {
  fs::create_directory(folder_ / "state");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("not a regular file")));
  fs::remove(folder_ / "state");
  folder_.Write("state", "");
  fs::resize_file(folder_ / "state", uint64_t{1} << 40);
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("at most")));
  folder_.Write("state", "flags:\n  a: 1\n");
  EXPECT_THAT(Open(), StatusIs(StatusCode::kDataLoss, HasSubstr("not a state file")));
}

TEST_F(FileStoreTest, ARunningProcessSeesDamageAndRecovery) {
  const auto store = MustOpen();
  const auto first = store->Put("a", "1", 0);
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  const std::string good = *ReadTextFile(folder_ / "state");
  folder_.Write("state", "garbage");
  log.AwaitFault(StatusCode::kDataLoss);
  EXPECT_THAT(store->Get("a"), StatusIs(StatusCode::kDataLoss));
  EXPECT_THAT(store->Put("a", "2", *first), StatusIs(StatusCode::kDataLoss));
  folder_.Write("state", good);
  log.AwaitFault(StatusCode::kOk);
  EXPECT_THAT(store->Put("a", "2", *first), IsOk());
  log.Await({{"a", "2"}});
  fs::remove(folder_ / "state");
  log.AwaitFault(StatusCode::kDataLoss);
}

TEST_F(FileStoreTest, ALeftTemporaryFileIsNoMatter) {
  folder_.Write("state.tmp", std::string(1000, 'x'));
  ASSERT_THAT(MustOpen()->Put("a", "1", 0), IsOk());
  EXPECT_EQ(MustOpen()->Get("a")->value, "1");
}

TEST_F(FileStoreTest, AChangeThatCannotBeWrittenChangesNothing) {
  const auto store = MustOpen();
  const auto put = store->Put("a", "1", 0);
  ASSERT_THAT(put, IsOk());
  fs::create_directory(folder_ / "state.tmp");
  EXPECT_THAT(store->Put("a", "2", *put), StatusIs(StatusCode::kUnavailable, HasSubstr("Is a directory")));
  EXPECT_EQ(*store->Get("a"), (Entry{"a", "1", *put}));
  fs::remove(folder_ / "state.tmp");
  EXPECT_THAT(store->Put("a", "2", *put), IsOk());
}

}  // namespace
}  // namespace sluice::state
