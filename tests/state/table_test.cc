#include "state/table.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace sluice::state {
namespace {

using absl::StatusCode;
using test::IsOk;
using test::StatusIs;
using ::testing::HasSubstr;

absl::StatusOr<uint64_t> Put(Table& table, const std::string& key, const std::string& value, uint64_t expected) {
  return table.Commit({{.key = key, .value = value, .expected = expected}}, std::nullopt);
}
absl::StatusOr<uint64_t> Delete(Table& table, const std::string& key, uint64_t expected) {
  return table.Commit({{.key = key, .value = std::nullopt, .expected = expected}}, std::nullopt);
}

class NamedSession final : public Session {
 public:
  std::string_view name() const override { return "7.0"; }
  MonoTime alive_until() const override { return kInfiniteFuture; }
};

Table Example() {
  Table table;
  EXPECT_THAT(Put(table, "a", "one\ntwo 3 4\n", 0), IsOk());
  EXPECT_THAT(Put(table, "flags/override/x", std::string("\0\xff", 2), 0), IsOk());
  EXPECT_THAT(Put(table, "empty", "", 0), IsOk());
  EXPECT_THAT(Delete(table, "a", 1), IsOk());
  EXPECT_THAT(Put(table, "a", "sluice-state 1 ", 0), IsOk());
  return table;
}

TEST(TableTest, DecodesWhatItEncoded) {
  const auto decoded = Table::Decode(Example().Encode());
  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(decoded->revision(), 5u);
  EXPECT_EQ(decoded->List("").entries, Example().List("").entries);
  EXPECT_EQ(decoded->List("").entries.size(), 3u);
  const auto empty = Table::Decode(Table().Encode());
  ASSERT_THAT(empty, IsOk());
  EXPECT_EQ(empty->revision(), 0u);
}

TEST(TableTest, SessionsOfEntriesAreKept) {
  const NamedSession session;
  Table table = Example();
  ASSERT_THAT(table.Commit({{.key = "b", .value = "x y\n", .session = &session}}, std::nullopt), IsOk());
  auto decoded = Table::Decode(table.Encode());
  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(decoded->Get("b")->session, "7.0");
  EXPECT_EQ(decoded->Get("a")->session, "");
  EXPECT_EQ(decoded->List("").entries, table.List("").entries);
  EXPECT_EQ(decoded->Sessions(), std::set<std::string>{"7.0"});
  EXPECT_FALSE(decoded->DropSession("7"));
  EXPECT_TRUE(decoded->DropSession("7.0"));
  EXPECT_EQ(decoded->revision(), 7u);
  EXPECT_EQ(decoded->List("").entries, Example().List("").entries);
}

TEST(TableTest, EveryFlippedBitAndEveryCutIsFound) {
  const std::string good = Example().Encode();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(Table::Decode(good.substr(0, size)), StatusIs(StatusCode::kDataLoss)) << "cut at " << size;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_THAT(Table::Decode(bad), StatusIs(StatusCode::kDataLoss)) << "bit " << bit;
  }
  EXPECT_THAT(Table::Decode(good + "x"), StatusIs(StatusCode::kDataLoss, HasSubstr("checksum")));
  EXPECT_THAT(Table::Decode("sluice-state 2 " + good.substr(15)),
              StatusIs(StatusCode::kDataLoss, HasSubstr("version")));
}

TEST(TableTest, HeaderTellsTwoContentsApart) {
  Table table = Example();
  const std::string before = table.Encode();
  ASSERT_THAT(Put(table, "b", "", 0), IsOk());
  EXPECT_NE(table.Encode().substr(0, Table::kHeaderBytes), before.substr(0, Table::kHeaderBytes));
  EXPECT_EQ(before[Table::kHeaderBytes - 1], '\n');
}

TEST(TableTest, TooManyKeysAreRefused) {
  Table table;
  for (size_t i = 0; i < kMaxKeys; ++i) ASSERT_THAT(Put(table, "key" + std::to_string(i), "", 0), IsOk());
  EXPECT_THAT(Put(table, "more", "", 0), StatusIs(StatusCode::kResourceExhausted, HasSubstr("10000 keys")));
  EXPECT_THAT(Put(table, "key7", "changed", 8), IsOk());
  EXPECT_THAT(Delete(table, "key8", 9), IsOk());
  EXPECT_THAT(Put(table, "more", "", 0), IsOk());
}

TEST(TableTest, TooManyBytesAreRefused) {
  Table table;
  const std::string value(kMaxValueBytes - 2, 'x');  // with its key of two characters: a MiB
  for (size_t i = 0; i < 64; ++i) ASSERT_THAT(Put(table, std::to_string(10 + i), value, 0), IsOk());
  EXPECT_THAT(Put(table, "k", "", 0), StatusIs(StatusCode::kResourceExhausted, HasSubstr("allowed 67108864")));
  EXPECT_THAT(Put(table, "10", value, 1), IsOk());  // the old value makes room
  EXPECT_THAT(Put(table, "11", "short", 2), IsOk());
  EXPECT_THAT(Put(table, "k", "", 0), IsOk());
  ASSERT_THAT(Table::Decode(table.Encode()), IsOk());
}

}  // namespace
}  // namespace sluice::state
