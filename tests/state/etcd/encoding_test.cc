#include "state/etcd/encoding.h"

#include "base/status.h"
#include "gmock/gmock.h"
#include "state/etcd/lease_session.h"
#include "tests/support/status_matchers.h"

namespace sluice::state::etcd {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

mvccpb::Event Put(const std::string& key, const std::string& value, int64_t revision) {
  mvccpb::Event event;
  event.mutable_kv()->set_key("/p/" + key);
  event.mutable_kv()->set_value(value);
  event.mutable_kv()->set_mod_revision(revision);
  return event;
}
mvccpb::Event Deleted(const std::string& key, int64_t revision) {
  mvccpb::Event event = Put(key, "", revision);
  event.set_type(mvccpb::Event::DELETE);
  return event;
}

TEST(EncodingTest, SessionsHaveTheNamesThatEtcdctlShows) {
  EXPECT_EQ(SessionName(0x694d8a1b2c3d4e5f), "694d8a1b2c3d4e5f");
  EXPECT_EQ(LeaseOf("694d8a1b2c3d4e5f"), 0x694d8a1b2c3d4e5f);
  EXPECT_EQ(SessionName(0), "");
  for (const char* no : {"", "x", "1x", "ffffffffffffffffff"}) EXPECT_EQ(LeaseOf(no), 0) << no;
}

TEST(EncodingTest, TheFenceIsSaidBeforeTheKeys) {
  const std::vector<Change> changes = {{.key = "a", .value = "1", .expected = 3}, {.key = "b", .expected = 4}};
  const Fence fence{.key = "leader", .revision = 7};
  const auto request = EncodeCommit(changes, fence, "/p/");
  ASSERT_EQ(request.compare_size(), 3);
  EXPECT_EQ(request.compare(0).key(), "/p/leader");
  EXPECT_EQ(request.compare(0).mod_revision(), 7);
  EXPECT_EQ(request.success_size(), 2);
  EXPECT_EQ(request.success(1).request_delete_range().key(), "/p/b");

  etcdserverpb::TxnResponse response;
  for (const int64_t revision : {7, 3, 5}) {
    response.add_responses()->mutable_response_range()->add_kvs()->set_mod_revision(revision);
  }
  EXPECT_EQ(GetErrorDetails(ConflictOf(changes, fence, response)).metadata,
            (std::map<std::string, std::string>{{"key", "b"}, {"current_revision", "5"}}));
  response.mutable_responses(0)->mutable_response_range()->clear_kvs();
  EXPECT_EQ(GetErrorDetails(ConflictOf(changes, fence, response)).metadata,
            (std::map<std::string, std::string>{{"fence_key", "leader"}, {"current_revision", "0"}}));
  response.mutable_responses()->RemoveLast();
  EXPECT_TRUE(absl::IsUnavailable(ConflictOf(changes, fence, response)));
}

TEST(MirrorTest, EventsAreToldOnceAndInNet) {
  Mirror mirror;
  mirror.Reset({.revision = 5, .entries = {{"a", "1", 4}, {"b", "1", 5}}});
  const Changes none = mirror.Apply({Put("a", "old", 4), Put("b", "old", 5)}, "/p/");
  EXPECT_TRUE(none.put.empty() && none.deleted.empty());
  const Changes some = mirror.Apply({Put("a", "2", 6), Deleted("b", 7), Put("a", "3", 8), Put("c", "1", 8),
                                     Deleted("c", 9), Deleted("a", 10), Put("a", "4", 11)},
                                    "/p/");
  EXPECT_EQ(some.revision, 11u);
  EXPECT_THAT(some.put, ElementsAre(Entry{"a", "4", 11}));
  EXPECT_THAT(some.deleted, ElementsAre("b"));
}

TEST(MirrorTest, AListingTellsTheDifference) {
  Mirror mirror;
  mirror.Reset({.revision = 5, .entries = {{"a", "1", 4}, {"b", "1", 5}}});
  const Changes changes = mirror.Reset({.revision = 9, .entries = {{"b", "1", 5}, {"c", "1", 9}}});
  EXPECT_THAT(changes.put, ElementsAre(Entry{"c", "1", 9}));
  EXPECT_THAT(changes.deleted, ElementsAre("a"));
  EXPECT_THAT(mirror.Reset({.revision = 9, .entries = {{"b", "1", 5}, {"c", "1", 9}}}).put, IsEmpty());
}

TEST(BackoffTest, DoublesToItsCapAndJitters) {
  EXPECT_EQ(Backoff(1, 0), std::chrono::milliseconds(100));
  EXPECT_EQ(Backoff(2, 0), std::chrono::milliseconds(200));
  EXPECT_EQ(Backoff(2, 0.5), std::chrono::milliseconds(150));
  EXPECT_EQ(Backoff(1000, 0), seconds(5));
}

TEST(LeaseLifeTest, CountsFromTheSendingAndNeverComesBack) {
  const MonoTime start{seconds(100)};
  LeaseLife life(start, seconds(9));
  EXPECT_EQ(life.alive_until(), start + seconds(9));
  EXPECT_EQ(life.next_renewal(), start + seconds(3));
  EXPECT_TRUE(life.Renewed(start + seconds(3), seconds(9), start + seconds(5)));
  EXPECT_EQ(life.alive_until(), start + seconds(12));
  life.Failed(start + seconds(6), seconds(1));
  EXPECT_EQ(life.next_renewal(), start + seconds(7));
  // The answer comes when the lease might be over already: somebody may have acted on that.
  LeaseLife late = life;
  EXPECT_FALSE(late.Renewed(start + seconds(11), seconds(9), start + seconds(12)));
  EXPECT_TRUE(late.lost(start + seconds(12)));
  EXPECT_FALSE(late.Renewed(start + seconds(12), seconds(9), start + seconds(13)));
  EXPECT_EQ(late.alive_until(), start + seconds(12));
  // etcd says that there is no such lease.
  EXPECT_FALSE(life.Renewed(start + seconds(7), seconds(0), start + seconds(8)));
  EXPECT_TRUE(life.lost(start + seconds(8)));
}

}  // namespace
}  // namespace sluice::state::etcd
