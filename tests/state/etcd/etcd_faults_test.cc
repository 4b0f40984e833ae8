// etcd that hangs, dies, compacts, or is cut off.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <iostream>
#include <string>

#include "gmock/gmock.h"
#include "state/election.h"
#include "tests/state/etcd/etcd_world.h"
#include "tests/state/etcd/tcp_proxy.h"
#include "tests/state/watch_log.h"

namespace sluice::state {
namespace {

using absl::StatusCode;
using test::IsOk;
using test::StatusIs;
using Way = TcpProxy::Way;
using std::chrono::milliseconds;
using std::chrono::seconds;

EtcdOptions Through(const TcpProxy& proxy) {
  return {.endpoints = {proxy.url()},
          .prefix = "/sluice/test/",
          .timeout = milliseconds(1000),
          .ping_interval = milliseconds(300)};
}

class EtcdFaultsTest : public testing::Test {
 protected:
  // Waits until `done`, by looking again and again.
  void Await(const std::function<bool()>& done, Duration limit = seconds(20)) {
    const MonoTime end = clock_.Now() + limit;
    while (!done()) ASSERT_LT(clock_.Now(), end) << "waited in vain";
  }

  const SystemClock clock_{};
  EtcdProcess etcd_;
  TcpProxy proxy_{etcd_.endpoint()};
  EtcdClient direct_{OptionsFor(etcd_)};
};

TEST_F(EtcdFaultsTest, ACompactionDuringADisconnectionLosesNoChange) {
  EtcdClient cut(Through(proxy_));
  const auto a = direct_->Put("a", "1", 0), b = direct_->Put("b", "1", 0);
  ASSERT_THAT(b, IsOk());
  WatchLog log;
  const auto watch = cut->Watch("", log.Callback());
  log.Await({{"a", "1"}, {"b", "1"}});
  proxy_.Set(Way::kCut);
  log.AwaitFault(StatusCode::kUnavailable);
  const auto a2 = direct_->Put("a", "2", *a);
  ASSERT_THAT(direct_->Delete("b", *b), IsOk());
  ASSERT_THAT(direct_->Put("a", "3", *a2), IsOk());
  const auto last = direct_->Put("c", "1", 0);
  ASSERT_THAT(last, IsOk());
  etcd_.Ctl({"compact", "--physical", std::to_string(*last)});
  proxy_.Set(Way::kOpen);
  log.Await({{"a", "3"}, {"c", "1"}});
  log.AwaitFault(StatusCode::kOk);
  ASSERT_THAT(direct_->Put("c", "2", *last), IsOk());
  log.Await({{"a", "3"}, {"c", "2"}});
  EXPECT_GE(cut.Metric("sluice_state_watch_restarts_total"), 1);
}

TEST_F(EtcdFaultsTest, AMemberThatHangsIsNoticedAndComesBack) {
  EtcdOptions options = OptionsFor(etcd_);
  options.timeout = milliseconds(500);
  EtcdClient store(options);
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  const auto put = store->Put("a", "1", 0);
  log.Await({{"a", "1"}});
  etcd_.Pause();
  const MonoTime begun = clock_.Now();
  EXPECT_THAT(store->Get("a"), StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(store->Put("a", "2", *put), StatusIs(StatusCode::kUnavailable));
  EXPECT_LT(clock_.Now() - begun, seconds(4));
  log.AwaitFault(StatusCode::kUnavailable);
  etcd_.Resume();
  log.AwaitFault(StatusCode::kOk);
  // Whether the change happened is unknown, and to be read.
  const auto now = store->Get("a");
  ASSERT_THAT(now, IsOk());
  EXPECT_TRUE(now->value == "1" || now->value == "2");
  ASSERT_THAT(store->Put("a", "3", now->revision), IsOk());
  log.Await({{"a", "3"}});
}

TEST_F(EtcdFaultsTest, ARestartLosesNothingAndSessionsGoOn) {
  EtcdClient store(OptionsFor(etcd_));
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  const auto session = store->BeginSession(seconds(6));
  ASSERT_THAT(session, IsOk());
  const auto put = store->Put("a", "1", 0, {.session = session->get()});
  ASSERT_THAT(put, IsOk());
  log.Await({{"a", "1"}});
  etcd_.Kill();
  log.AwaitFault(StatusCode::kUnavailable);
  const MonoTime before = (*session)->alive_until();
  etcd_.Start();
  log.AwaitFault(StatusCode::kOk);
  Await([&] { return (*session)->alive_until() > before; });
  EXPECT_EQ(store->Get("a")->revision, *put);
  ASSERT_THAT(direct_->Put("b", "1", 0), IsOk());
  log.Await({{"a", "1"}, {"b", "1"}});
}

// The other side sees the entries vanish only after the cut off side knows that it lost them.
TEST_F(EtcdFaultsTest, ASessionThatIsCutOffIsOverBeforeItsEntriesVanish) {
  EtcdClient cut(Through(proxy_));
  const auto session = cut->BeginSession(kMinSessionTtl);
  ASSERT_THAT(session, IsOk());
  ASSERT_THAT(cut->Put("a", "1", 0, {.session = session->get()}), IsOk());
  // It is renewed: it lives longer than its ttl.
  const MonoTime first = (*session)->alive_until();
  Await([&] { return clock_.Now() > first; });
  EXPECT_GT((*session)->alive_until(), clock_.Now());
  EXPECT_THAT(direct_->Get("a"), IsOk());
  EXPECT_GE(cut.Metric("sluice_state_session_renewals_total", "ok"), 1);

  proxy_.Set(Way::kSilent);
  Await([&] { return absl::IsNotFound(direct_->Get("a").status()); });
  EXPECT_LE((*session)->alive_until(), clock_.Now());
  proxy_.Set(Way::kOpen);
  // It never comes back.
  Await([&] { return cut->List("").ok(); });
  EXPECT_LE((*session)->alive_until(), clock_.Now());
  EXPECT_THAT(cut->Put("a", "2", 0, {.session = session->get()}), StatusIs(StatusCode::kFailedPrecondition));
}

TEST_F(EtcdFaultsTest, AnotherEndpointTakesOver) {
  EtcdOptions options = Through(proxy_);
  options.endpoints = {"http://127.0.0.1:1", proxy_.url(), etcd_.url()};
  EtcdClient store(options);
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  const auto session = store->BeginSession(kMinSessionTtl);
  ASSERT_THAT(session, IsOk());
  ASSERT_THAT(store->Put("a", "1", 0, {.session = session->get()}), IsOk());
  proxy_.Set(Way::kCut);
  const MonoTime at_cut = (*session)->alive_until();
  Await([&] { return (*session)->alive_until() > at_cut; });
  EXPECT_EQ(store->Get("a")->value, "1");
  ASSERT_THAT(direct_->Put("b", "1", 0), IsOk());
  log.Await({{"a", "1"}, {"b", "1"}});
}

TEST_F(EtcdFaultsTest, ALostAnswerIsLookedUpWhereThatTellsWhatHappened) {
  EtcdOptions options = Through(proxy_);
  options.endpoints.push_back(etcd_.url());
  EtcdClient store(options);
  const auto session = store->BeginSession(seconds(10));
  ASSERT_THAT(session, IsOk());
  proxy_.Set(Way::kNoAnswers);
  const auto resolved = store->Put("mine", "1", 0, {.session = session->get()});
  ASSERT_THAT(resolved, IsOk());
  EXPECT_EQ(direct_->Get("mine")->revision, *resolved);
  // Now through the other endpoint, as the first one failed.
  EXPECT_THAT(store->Put("other", "1", 0), IsOk());

  // A plain entry may be anybody's.
  TcpProxy another(etcd_.endpoint());
  options.endpoints.front() = another.url();
  EtcdClient unlucky(options);
  EXPECT_THAT(unlucky->List(""), IsOk());
  another.Set(Way::kNoAnswers);
  EXPECT_THAT(unlucky->Put("plain", "1", 0), StatusIs(StatusCode::kUnavailable));
  EXPECT_EQ(direct_->Get("plain")->value, "1");
}

TEST_F(EtcdFaultsTest, TheOldLeaderEndsBeforeTheNewOneBegins) {
  EtcdClient cut(Through(proxy_));
  const auto options = [](const std::string& name) {
    return Election::Options{.key = "leader", .name = name, .session_ttl = kMinSessionTtl, .retry = milliseconds(50)};
  };
  Election one(*cut, options("one"), clock_);
  Await([&] { return one.Tick(), one.leader().has_value(); });
  Election two(*direct_, options("two"), clock_);
  two.Tick();
  EXPECT_EQ(two.leader(), std::nullopt);
  const Fence old = *one.leader();
  ASSERT_THAT(cut->Put("decided", "by one", 0, {.fence = old}), IsOk());

  proxy_.Set(Way::kSilent);
  Await([&] {
    two.Tick();
    EXPECT_FALSE(two.leader().has_value() && one.leader().has_value());
    return two.leader().has_value();
  });
  EXPECT_EQ(two.leader_name(), "two");
  const Fence fresh = *two.leader();
  EXPECT_GT(fresh.revision, old.revision);
  // As a process that slept for long, and does not know: the fence stops it.
  EXPECT_THAT(direct_->Put("decided", "late", direct_->Get("decided")->revision, {.fence = old}),
              StatusIs(StatusCode::kAborted));
  proxy_.Set(Way::kOpen);
  Await([&] { return one.Tick(), one.leader_name() == "two"; });
  EXPECT_EQ(one.leader(), std::nullopt);
}

// A process of its own, made before this one has used gRPC.
TEST(EtcdKillTest, EntriesOfAKilledProcessVanishWithinTheTtl) {
  std::array<int, 2> to_child{}, from_child{};
  ASSERT_EQ(pipe(to_child.data()), 0);
  ASSERT_EQ(pipe(from_child.data()), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    std::array<char, 256> url{};
    if (read(to_child[0], url.data(), url.size() - 1) <= 0) _exit(1);
    EtcdClient store({.endpoints = {url.data()}, .prefix = "/sluice/test/"});
    const auto session = store->BeginSession(kMinSessionTtl);
    if (!session.ok() || !store->Put("a", "1", 0, {.session = session->get()}).ok()) _exit(1);
    if (write(from_child[1], "x", 1) != 1) _exit(1);
    while (true) pause();
  }
  const EtcdProcess etcd;
  ASSERT_GT(write(to_child[1], etcd.url().data(), etcd.url().size()), 0);
  char done = 0;
  ASSERT_EQ(read(from_child[0], &done, 1), 1);
  EtcdClient store(OptionsFor(etcd));
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  log.Await({{"a", "1"}});
  const SystemClock clock;
  kill(pid, SIGKILL);
  const MonoTime killed = clock.Now();
  log.Await({});
  std::cout << "gone after " << ToMillis(clock.Now() - killed) << " ms\n";
  // etcd looks for leases that ended twice a second.
  EXPECT_LE(clock.Now() - killed, kMinSessionTtl + seconds(2));
  int status = 0;
  waitpid(pid, &status, 0);
}

}  // namespace
}  // namespace sluice::state
