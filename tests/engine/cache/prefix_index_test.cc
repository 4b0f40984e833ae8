#include "engine/cache/prefix_index.h"

#include <algorithm>
#include <map>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::engine {

void PrintTo(const PrefixIndex::Match& m, std::ostream* out) { *out << m.sequence << ":" << m.length; }
bool operator==(const PrefixIndex::Match& a, const PrefixIndex::Match& b) {
  return a.sequence == b.sequence && a.length == b.length;
}

namespace {

using Match = PrefixIndex::Match;
using Tokens = std::vector<TokenId>;
using testing::ElementsAre;
using testing::IsEmpty;

// The same contract by comparing everything with everything.
class NaiveIndex {
 public:
  void Set(SequenceId id, const std::string& salt, const Tokens& tokens) { held_[id] = {salt, tokens}; }
  void Extend(SequenceId id, const Tokens& tokens) {
    auto& held = held_.at(id).second;
    held.insert(held.end(), tokens.begin(), tokens.end());
  }
  void Remove(SequenceId id) { held_.erase(id); }

  std::vector<Match> Matches(const std::string& salt, const Tokens& tokens, size_t limit) const {
    std::vector<Match> all;
    for (const auto& [id, held] : held_) {
      if (held.first != salt) continue;
      const auto end = std::mismatch(tokens.begin(), tokens.end(), held.second.begin(), held.second.end()).first;
      if (end != tokens.begin()) all.push_back({id, static_cast<int>(end - tokens.begin())});
    }
    std::stable_sort(all.begin(), all.end(), [](const Match& a, const Match& b) { return a.length > b.length; });
    if (all.size() > limit) all.resize(limit);
    return all;
  }
  const std::map<SequenceId, std::pair<std::string, Tokens>>& held() const { return held_; }

 private:
  std::map<SequenceId, std::pair<std::string, Tokens>> held_;
};

class PrefixIndexDifferentialTest : public testing::TestWithParam<uint64_t> {};

TEST_P(PrefixIndexDifferentialTest, MatchesANaiveModel) {
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  std::mt19937_64 random(GetParam());
  const TokenId alphabet = 2 + static_cast<TokenId>(GetParam() % 3);  // few tokens: many common prefixes
  const std::vector<std::string> salts = {"", "tenant-a", "tenant-b"};
  PrefixIndex index;
  NaiveIndex naive;
  const auto tokens = [&](size_t max) {
    Tokens out(random() % (max + 1));
    for (TokenId& t : out) t = static_cast<TokenId>(random() % alphabet);
    return out;
  };
  for (int step = 0; step < 4000; ++step) {
    const auto id = static_cast<SequenceId>(random() % 12);
    switch (random() % 5) {
      case 0:
      case 1: {
        // Often a prefix of, or exactly, what another sequence holds.
        Tokens prompt = tokens(14);
        if (const auto other = naive.held().find(static_cast<SequenceId>(random() % 12)); other != naive.held().end()) {
          if (random() % 2 == 0) prompt = other->second.second;
          if (random() % 3 == 0) prompt.resize(prompt.size() / 2);
        }
        const std::string& salt = salts[random() % salts.size()];
        index.Set(id, salt, prompt);
        naive.Set(id, salt, prompt);
        break;
      }
      case 2:
      case 3:
        if (naive.held().contains(id)) {
          const Tokens more = tokens(3);
          index.Extend(id, more);
          naive.Extend(id, more);
        }
        break;
      default:
        index.Remove(id);
        naive.Remove(id);
    }
    const std::string& salt = salts[random() % salts.size()];
    const Tokens prompt = tokens(20);
    const size_t limit = random() % 14;
    const auto want = naive.Matches(salt, prompt, 100);
    ASSERT_EQ(index.Matches(salt, prompt, limit), naive.Matches(salt, prompt, limit)) << "step " << step;
    ASSERT_EQ(index.Longest(salt, prompt), want.empty() ? Match{} : want[0]) << "step " << step;
    ASSERT_EQ(index.sequence_count(), naive.held().size());
    size_t declared = 0;
    for (const auto& [sequence, held] : naive.held()) declared += held.second.size();
    ASSERT_LE(index.size().tokens, declared);
    ASSERT_LE(index.size().nodes, 2 * naive.held().size() + salts.size()) << "the tree stays compressed";
  }
  for (SequenceId id = 0; id < 12; ++id) index.Remove(id);
  EXPECT_EQ(index.size().nodes, 0u) << "nothing is left behind";
}

INSTANTIATE_TEST_SUITE_P(Seeds, PrefixIndexDifferentialTest, testing::Range<uint64_t>(1, 13));

TEST(PrefixIndexTest, FindsTheLongestPrefixAndTheLowestSequence) {
  PrefixIndex index;
  index.Set(7, "", Tokens{1, 2, 3, 4});
  index.Set(3, "", Tokens{1, 2, 3, 4});
  index.Set(1, "", Tokens{1, 2, 9});
  EXPECT_EQ(index.Longest("", Tokens{1, 2, 3, 5}), (Match{3, 3}));
  EXPECT_EQ(index.Longest("", Tokens{1, 2}), (Match{1, 2})) << "a tie of three";
  EXPECT_EQ(index.Longest("", Tokens{2, 2}), Match{});
  EXPECT_EQ(index.Longest("", Tokens{}), Match{});
  EXPECT_THAT(index.Matches("", Tokens{1, 2, 3, 4, 5}, 10), ElementsAre(Match{3, 4}, Match{7, 4}, Match{1, 2}));
  EXPECT_THAT(index.Matches("", Tokens{1, 2, 3, 4, 5}, 2), ElementsAre(Match{3, 4}, Match{7, 4}));
  EXPECT_THAT(index.Matches("", Tokens{1, 2, 3}, 0), IsEmpty());
}

TEST(PrefixIndexTest, SaltsNeverMeet) {
  PrefixIndex index;
  index.Set(0, "a", Tokens{1, 2, 3});
  EXPECT_EQ(index.Longest("b", Tokens{1, 2, 3}), Match{});
  EXPECT_EQ(index.Longest("", Tokens{1, 2, 3}), Match{});
  index.Set(0, "b", Tokens{1, 2});
  EXPECT_EQ(index.Longest("a", Tokens{1, 2, 3}), Match{}) << "Set replaces, even across salts";
  EXPECT_EQ(index.Longest("b", Tokens{1, 2, 3}), (Match{0, 2}));
}

TEST(PrefixIndexTest, LockstepTwinsThatPartStayCompressed) {
  PrefixIndex index;
  index.Set(0, "", Tokens{1});
  index.Set(1, "", Tokens{1});
  for (TokenId t = 0; t < 500; ++t) {  // two greedy generations of one prompt
    index.Extend(0, Tokens{t});
    index.Extend(1, Tokens{t});
  }
  EXPECT_EQ(index.size().nodes, 2u) << "the root and one common node";
  EXPECT_EQ(index.size().tokens, 501u) << "shared tokens are stored once";
  index.Extend(0, Tokens{8});
  index.Extend(1, Tokens{9});
  EXPECT_EQ(index.size().tokens, 503u);
  index.Remove(0);
  EXPECT_EQ(index.size().nodes, 2u);
  EXPECT_EQ(index.size().tokens, 502u);
}

TEST(PrefixIndexTest, EmptyDeclarationsCountButNeverMatch) {
  PrefixIndex index;
  index.Set(4, "s", Tokens{});
  EXPECT_EQ(index.sequence_count(), 1u);
  EXPECT_EQ(index.Longest("s", Tokens{1}), Match{});
  index.Extend(4, Tokens{});
  index.Extend(4, Tokens{1, 2});
  EXPECT_EQ(index.Longest("s", Tokens{1}), (Match{4, 1}));
  index.Remove(4);
  index.Remove(4);  // twice is harmless
  EXPECT_EQ(index.size().nodes, 0u);
}

TEST(PrefixIndexDeathTest, ExtendNeedsSet) {
  PrefixIndex index;
  EXPECT_DEATH(index.Extend(1, Tokens{1}), "earlier Set");
}

}  // namespace
}  // namespace sluice::engine
