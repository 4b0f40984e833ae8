#include "base/published.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(Published, LastStoreIsRead) {
  Published<int> published;
  EXPECT_EQ(published.Load(), nullptr);
  published.Store(std::make_shared<const int>(1));
  published.Store(std::make_shared<const int>(2));
  EXPECT_EQ(*published.Load(), 2);
  EXPECT_EQ(published.Read([](const std::shared_ptr<const int>& value) { return *value + 1; }), 3);
}

TEST(Published, OldVersionsAreFreedWhenNobodyReads) {
  Published<int> published(std::make_shared<const int>(1));
  const std::weak_ptr<const int> first = published.Load();
  published.Read([&](const std::shared_ptr<const int>& value) {
    published.Store(std::make_shared<const int>(2));
    EXPECT_EQ(*value, 1) << "lives while it is read";
    return 0;
  });
  EXPECT_FALSE(first.expired());
  published.Store(std::make_shared<const int>(3));
  EXPECT_TRUE(first.expired());
}

// Each version is two equal numbers; a reader that saw a freed or a half version would see others (or ASAN would tell).
TEST(Published, ReadersSeeWholeVersionsThatOnlyGrow) {
  struct Pair {
    int64_t a, b;
  };
  Published<Pair> published(std::make_shared<const Pair>(Pair{0, 0}));
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      int64_t last = 0;
      while (!stop) {
        const auto loaded = published.Load();
        EXPECT_EQ(loaded->a, loaded->b);
        EXPECT_GE(loaded->a, last);
        last = published.Read([](const std::shared_ptr<const Pair>& value) {
          EXPECT_EQ(value->a, value->b);
          return value->a;
        });
        EXPECT_GE(last, loaded->a);
      }
    });
  }
  for (int64_t i = 1; i <= 20'000; ++i) published.Store(std::make_shared<const Pair>(Pair{i, i}));
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace sluice
