#include "state/etcd/etcd_store.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "gmock/gmock.h"
#include "tests/services/test_certificates.h"
#include "tests/state/etcd/etcd_world.h"
#include "tests/state/watch_log.h"

namespace sluice::state {
namespace {

using absl::StatusCode;
using test::IsOk;
using test::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Etcd, StoreContract, testing::Values([] { return std::make_unique<EtcdWorld>(); }));

absl::Status Open(EtcdOptions options) {
  const SystemClock clock;
  MetricsRegistry metrics;
  return EtcdStore::Open(
             std::move(options), clock, [] { return 0.5; }, metrics)
      .status();
}

TEST(EtcdStoreTest, OptionsThatCannotWorkAreRefused) {
  const auto refused = [](const std::string& why) { return StatusIs(StatusCode::kInvalidArgument, HasSubstr(why)); };
  EXPECT_THAT(Open({}), refused("no endpoints"));
  EXPECT_THAT(Open({.endpoints = {"a:1"}}), refused("'a:1' is not 'http://HOST:PORT'"));
  EXPECT_THAT(Open({.endpoints = {"https://a:1", "http://b:1"}}), refused("'http://b:1' is not 'https://HOST:PORT'"));
  EXPECT_THAT(Open({.endpoints = {"http://a:1"}, .prefix = "x"}), refused("prefix 'x'"));
  EXPECT_THAT(Open({.endpoints = {"https://a:1"}, .ca_file = "/nowhere/ca.pem"}), refused("/nowhere/ca.pem"));
  EXPECT_THAT(Open({.endpoints = {"https://a:1"}, .certificate_file = "a"}), refused("needs its key"));
  EXPECT_THAT(Open({.endpoints = {"http://a:1"}, .username = "a"}), refused("password"));
}

TEST(EtcdStoreTest, OutOfReachIsSaidWithinTheTimeout) {
  const SystemClock clock;
  EtcdClient store(
      {.endpoints = {"http://127.0.0.1:1", "http://127.0.0.1:2"}, .timeout = std::chrono::milliseconds(300)});
  const auto gone = StatusIs(StatusCode::kUnavailable, AllOf(HasSubstr("etcd at 127.0.0.1:"), HasSubstr("connect")));
  const MonoTime begun = clock.Now();
  EXPECT_THAT(store->Get("a"), gone);
  EXPECT_THAT(store->Put("a", "1", 0), gone);
  EXPECT_THAT(store->List(""), gone);
  EXPECT_THAT(store->BeginSession(kMinSessionTtl), gone);
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  EXPECT_EQ(log.calls(), 1u);
  log.AwaitFault(StatusCode::kUnavailable);
  EXPECT_LT(clock.Now() - begun, std::chrono::seconds(5));
  EXPECT_EQ(store.Metric("sluice_state_reachable"), 0);
  EXPECT_GE(store.Metric("sluice_state_calls_total"), 5);
}

// Two stores, each of its own connection, count together: an increment that got lost would be missing at the end.
TEST(EtcdStoreTest, TwoStoresRaceAndLoseNothing) {
  constexpr int kRounds = 200;
  const EtcdProcess etcd;
  std::atomic<int> conflicts = 0;
  const auto count = [&] {
    EtcdClient store(OptionsFor(etcd));
    for (int done = 0; done < kRounds;) {
      const auto now = store->Get("count");
      ASSERT_TRUE(now.ok() || absl::IsNotFound(now.status())) << now.status();
      const auto put =
          store->Put("count", std::to_string(now.ok() ? std::stoi(now->value) + 1 : 1), now.ok() ? now->revision : 0);
      if (put.ok()) {
        ++done;
      } else {
        ASSERT_THAT(put, StatusIs(StatusCode::kAborted));
        ++conflicts;
      }
    }
  };
  std::thread one(count), two(count);
  one.join();
  two.join();
  EtcdClient store(OptionsFor(etcd));
  EXPECT_EQ(store->Get("count")->value, std::to_string(2 * kRounds));
  EXPECT_GT(conflicts, 0) << "there was no race";
}

TEST(EtcdStoreTest, OtherPrefixesAreOtherWorlds) {
  const EtcdProcess etcd;
  EtcdOptions other = OptionsFor(etcd);
  other.prefix = "/sluice/test2/";
  EtcdClient one(OptionsFor(etcd)), two(other);
  ASSERT_THAT(one->Put("a", "1", 0), IsOk());
  EXPECT_THAT(two->Get("a"), StatusIs(StatusCode::kNotFound));
  EXPECT_TRUE(two->List("")->entries.empty());
  EXPECT_THAT(etcd.Ctl({"get", "/sluice/test/a"}), HasSubstr("/sluice/test/a\n1\n"));
}

TEST(EtcdStoreTest, LongListsComeInPages) {
  const EtcdProcess etcd;
  EtcdClient store(OptionsFor(etcd));
  std::vector<Change> changes;
  for (int i = 0; i < 600; ++i) {
    changes.push_back({.key = "n" + std::to_string(1000 + i), .value = std::to_string(i)});
    if (changes.size() < 60) continue;
    ASSERT_THAT(store->Commit(changes, std::nullopt), IsOk());
    changes.clear();
  }
  const auto listing = store->List("n");
  ASSERT_THAT(listing, IsOk());
  ASSERT_EQ(listing->entries.size(), 600u);
  for (size_t i = 0; i < 600; ++i) EXPECT_EQ(listing->entries[i].value, std::to_string(i));
}

class EtcdAuthTest : public testing::Test {
 protected:
  EtcdAuthTest() {
    EtcdClient probe(OptionsFor(etcd_));
    EXPECT_THAT(probe->List(""), IsOk());  // it serves
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"user", "add", "root:rootpass"},
          {"user", "grant-role", "root", "root"},
          {"user", "add", "sluice:secret"},
          {"role", "add", "sluice"},
          {"role", "grant-permission", "sluice", "--prefix=true", "readwrite", "/sluice/test/"},
          {"user", "grant-role", "sluice", "sluice"},
          {"auth", "enable"}}) {
      etcd_.Ctl(words);
    }
    folder_.Write("password", "secret\n");
  }
  EtcdOptions Options() const {
    EtcdOptions options = OptionsFor(etcd_);
    options.username = "sluice";
    options.password_file = folder_ / "password";
    return options;
  }

  EtcdProcess etcd_;
  const test::TempFolder folder_;
};

TEST_F(EtcdAuthTest, AUserWithARoleForThePrefixIsEnough) {
  EtcdClient nobody(OptionsFor(etcd_)), store(Options());
  EXPECT_THAT(nobody->Get("a"), StatusIs(StatusCode::kUnavailable, HasSubstr("user name is empty")));
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  const auto session = store->BeginSession(kMinSessionTtl);
  ASSERT_THAT(session, IsOk());
  ASSERT_THAT(store->Put("a", "1", 0, {.session = session->get()}), IsOk());
  log.Await({{"a", "1"}});
  EtcdOptions elsewhere = Options();
  elsewhere.prefix = "/other/";
  EXPECT_THAT(EtcdClient(elsewhere)->Get("a"), StatusIs(StatusCode::kUnavailable, HasSubstr("permission denied")));
  folder_.Write("password", "wrong");
  EXPECT_THAT(EtcdClient(Options())->Get("a"), StatusIs(StatusCode::kUnavailable, HasSubstr("authentication failed")));
}

// etcd forgets its tokens when they are not used for a while, and when authentication is switched off and on.
TEST_F(EtcdAuthTest, ATokenThatIsNoLongerKnownIsRenewed) {
  EtcdClient store(Options());
  WatchLog log;
  const auto watch = store->Watch("", log.Callback());
  const auto put = store->Put("a", "1", 0);
  ASSERT_THAT(put, IsOk());
  etcd_.Ctl({"--user=root:rootpass", "auth", "disable"});
  etcd_.Ctl({"auth", "enable"});
  ASSERT_THAT(store->Put("a", "2", *put), IsOk());
  EXPECT_THAT(store->Put("b", "1", 0), IsOk());
  log.Await({{"a", "2"}, {"b", "1"}});
  EXPECT_GE(store.Metric("sluice_state_calls_total", "authenticate"), 2);
}

TEST(EtcdTlsTest, BothSidesShowCertificates) {
  const test::TempFolder folder;
  const test::TestCertificate ca("test authority"), stranger("another authority");
  const test::TestCertificate server("localhost", &ca), client("sluice", &ca);
  for (const auto& [name, certificate] :
       {std::pair{"ca", &ca}, {"stranger", &stranger}, {"server", &server}, {"client", &client}}) {
    folder.Write(std::string(name) + ".pem", certificate->CertificatePem());
    folder.Write(std::string(name) + ".key", certificate->KeyPem());
  }
  const EtcdProcess etcd(
      {.scheme = "https",
       .arguments = {"--cert-file=" + (folder / "server.pem"), "--key-file=" + (folder / "server.key"),
                     "--client-cert-auth", "--trusted-ca-file=" + (folder / "ca.pem")}});
  EtcdOptions options = OptionsFor(etcd);
  options.ca_file = folder / "ca.pem";
  options.certificate_file = folder / "client.pem";
  options.key_file = folder / "client.key";
  EtcdClient store(options);
  EXPECT_THAT(store->Put("a", "1", 0), IsOk());

  options.timeout = std::chrono::milliseconds(500);
  EtcdOptions distrustful = options;
  distrustful.ca_file = folder / "stranger.pem";
  EXPECT_THAT(EtcdClient(distrustful)->Get("a"), StatusIs(StatusCode::kUnavailable));
  EtcdOptions anonymous = options;
  anonymous.certificate_file = anonymous.key_file = "";
  EXPECT_THAT(EtcdClient(anonymous)->Get("a"), StatusIs(StatusCode::kUnavailable));
}

}  // namespace
}  // namespace sluice::state
