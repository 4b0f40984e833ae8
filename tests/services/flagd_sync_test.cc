#include "services/clients/flagd_sync.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/mutex.h"
#include "flagd/sync/v1/sync.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/grpc/struct_codec.h"
#include "tests/services/test_certificates.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

namespace api = ::flagd::sync::v1;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Document(const std::string& key) {
  return json({{"flags", {{key, {{"state", "ENABLED"}, {"variants", {{"on", true}}}, {"defaultVariant", "on"}}}}}})
      .dump();
}

// Sends what the test says on every open stream, and can end them all.
class FakeControlPlane final : public api::FlagSyncService::Service {
 public:
  explicit FakeControlPlane(
      int port = 0, const std::shared_ptr<grpc::ServerCredentials>& credentials = grpc::InsecureServerCredentials()) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), credentials, &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeControlPlane() override {
    EndStreams();
    server_->Shutdown();
  }

  grpc::Status SyncFlags(grpc::ServerContext* context, const api::SyncFlagsRequest* request,
                         grpc::ServerWriter<api::SyncFlagsResponse>* writer) override {
    MutexLock lock(mu_);
    const auto selector = context->client_metadata().find("flagd-selector");
    seen_.push_back({request->provider_id(), selector == context->client_metadata().end()
                                                 ? ""
                                                 : std::string(selector->second.data(), selector->second.size())});
    changed_.SignalAll();
    const int generation = generation_;
    for (size_t sent = 0; generation == generation_;) {
      if (sent < documents_.size()) {
        writer->Write(documents_[sent++]);
      } else {
        changed_.Wait(mu_);
      }
    }
    return {grpc::StatusCode::UNAVAILABLE, "moving house"};
  }

  void Send(const std::string& document, const json& context = json::object()) {
    MutexLock lock(mu_);
    api::SyncFlagsResponse& response = documents_.emplace_back();
    response.set_flag_configuration(document);
    JsonToStruct(context, *response.mutable_sync_context());
    changed_.SignalAll();
  }
  void EndStreams() {
    MutexLock lock(mu_);
    ++generation_;
    changed_.SignalAll();
  }
  // The provider id and selector of stream `n`; waits for it.
  std::pair<std::string, std::string> Stream(size_t n) {
    MutexLock lock(mu_);
    while (seen_.size() <= n) changed_.Wait(mu_);
    return seen_[n];
  }
  int port() const { return port_; }

 private:
  int port_ = 0;
  Mutex mu_;
  CondVar changed_;
  int generation_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<api::SyncFlagsResponse> documents_ ABSL_GUARDED_BY(mu_);  // every stream begins with the first
  std::vector<std::pair<std::string, std::string>> seen_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<grpc::Server> server_;
};

// What a FlagdSync delivered: the keys of its flags, or the error.
class Deliveries {
 public:
  FlagdSync::Callback Callback() {
    return [this](absl::StatusOr<RemoteFlags> remote) {
      MutexLock lock(mu_);
      if (remote.ok()) flags_ = remote->definitions.flags;
      got_.push_back(remote.ok() ? remote->definitions.flags.at(0).key : "refused");
      changed_.SignalAll();
    };
  }
  std::vector<std::string> Wait(size_t count) {
    MutexLock lock(mu_);
    while (got_.size() < count) changed_.Wait(mu_);
    return got_;
  }
  std::vector<flags::Flag> flags() {
    MutexLock lock(mu_);
    return flags_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::string> got_ ABSL_GUARDED_BY(mu_);
  std::vector<flags::Flag> flags_ ABSL_GUARDED_BY(mu_);
};

class FlagdSyncTest : public testing::Test {
 protected:
  std::unique_ptr<FlagdSync> Start(int port, const Clock& clock) {
    auto sync = FlagdSync::Start(
        {.target = "127.0.0.1:" + std::to_string(port),
         .provider_id = "sluice-test",
         .selector = "flagSetId=tests",
         .initial_backoff = std::chrono::milliseconds(2),
         .max_backoff = std::chrono::milliseconds(20),
         .stale_after = std::chrono::seconds(5)},
        clock, [] { return 0.5; }, deliveries_.Callback());
    EXPECT_THAT(sync, test::IsOk());
    return *std::move(sync);
  }

  template <typename Condition>
  static void Await(Condition condition) {  // the test's timeout ends it
    while (!condition()) std::this_thread::yield();
  }

  SystemClock clock_;
  Deliveries deliveries_;
};

TEST(SyncBackoffTest, DoublesUpToTheLimitLessARandomHalf) {
  const FlagdSyncOptions options{.initial_backoff = std::chrono::seconds(1), .max_backoff = std::chrono::seconds(30)};
  std::vector<double> seconds;
  for (const int failures : {1, 2, 3, 5, 6, 60}) seconds.push_back(ToSeconds(SyncBackoff(options, failures, 0)));
  EXPECT_THAT(seconds, ElementsAre(1, 2, 4, 16, 30, 30));
  EXPECT_DOUBLE_EQ(ToSeconds(SyncBackoff(options, 3, 0.5)), 3);
  EXPECT_GT(ToSeconds(SyncBackoff(options, 1, 0.999)), 0.5);
}

TEST_F(FlagdSyncTest, DeliversEachChange) {
  FakeControlPlane plane;
  plane.Send(Document("first"), {{"region", "eu"}});
  const auto sync = Start(plane.port(), clock_);
  EXPECT_EQ(plane.Stream(0), (std::pair<std::string, std::string>{"sluice-test", "flagSetId=tests"}));
  EXPECT_THAT(deliveries_.Wait(1), ElementsAre("first"));
  EXPECT_EQ(deliveries_.flags()[0].layer, flags::Layer::kRemote);
  plane.Send(Document("second"));
  EXPECT_THAT(deliveries_.Wait(2), ElementsAre("first", "second"));
  EXPECT_TRUE(sync->status().connected);
  EXPECT_FALSE(sync->status().stale);
}

TEST_F(FlagdSyncTest, ABadDocumentIsRefusedAndTheStreamGoesOn) {
  FakeControlPlane plane;
  plane.Send(Document("first"));
  const auto sync = Start(plane.port(), clock_);
  deliveries_.Wait(1);
  plane.Send(R"({"flags": {"f": {"state": "ON"}}})");
  plane.Send("{");
  plane.Send(Document("third"));
  EXPECT_THAT(deliveries_.Wait(4), ElementsAre("first", "refused", "refused", "third"));
  EXPECT_EQ(sync->status().refused, 2);
  EXPECT_EQ(sync->status().updates, 2);
  EXPECT_EQ(sync->status().streams, 1);
}

TEST_F(FlagdSyncTest, ComesBackAfterALostStreamAndDoesNotRepeatItself) {
  FakeControlPlane plane;
  plane.Send(Document("first"));
  const auto sync = Start(plane.port(), clock_);
  deliveries_.Wait(1);
  plane.EndStreams();
  plane.Stream(1);
  Await([&] { return sync->status().updates == 2; });
  EXPECT_THAT(sync->status().last_error, HasSubstr("moving house"));
  EXPECT_THAT(deliveries_.Wait(1), ElementsAre("first")) << "the same document again is no change";
  plane.Send(Document("second"));
  EXPECT_THAT(deliveries_.Wait(2), ElementsAre("first", "second"));
}

TEST_F(FlagdSyncTest, FindsAControlPlaneThatWasRestarted) {
  auto plane = std::make_unique<FakeControlPlane>();
  const int port = plane->port();
  plane->Send(Document("first"));
  const auto sync = Start(port, clock_);
  deliveries_.Wait(1);
  plane.reset();
  Await([&] { return !sync->status().connected && sync->status().streams > 2; });
  plane = std::make_unique<FakeControlPlane>(port);
  plane->Send(Document("second"));
  EXPECT_THAT(deliveries_.Wait(2), ElementsAre("first", "second"));
}

TEST_F(FlagdSyncTest, StaleAfterAGraceWithoutAStream) {
  test::ManualClock clock;
  auto plane = std::make_unique<FakeControlPlane>();
  plane->Send(Document("first"));
  const auto sync = Start(plane->port(), clock);
  deliveries_.Wait(1);
  clock.Advance(std::chrono::hours(1));
  EXPECT_FALSE(sync->status().stale) << "a quiet stream is not stale";
  plane.reset();
  Await([&] { return !sync->status().connected; });
  EXPECT_FALSE(sync->status().stale);
  clock.Advance(std::chrono::seconds(5));
  EXPECT_TRUE(sync->status().stale);
}

TEST_F(FlagdSyncTest, StaleWhenNothingEverCame) {
  test::ManualClock clock;
  const auto sync = Start(1, clock);  // nobody listens on port 1
  EXPECT_FALSE(sync->status().stale);
  clock.Advance(std::chrono::seconds(5));
  EXPECT_TRUE(sync->status().stale);
}

TEST_F(FlagdSyncTest, EndsWhileAStreamIsOpenAndWhileItWaits) {
  FakeControlPlane plane;
  plane.Send(Document("first"));
  auto sync = Start(plane.port(), clock_);
  deliveries_.Wait(1);
  sync.reset();
  test::ManualClock clock;  // never advances: the backoff has no end
  sync = Start(1, clock);
  Await([&] { return !sync->status().last_error.empty(); });
  sync.reset();
}

// TLS both ways, by authorities made for this test.
class FlagdSyncTlsTest : public FlagdSyncTest {
 protected:
  FlagdSyncTlsTest() {
    grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    tls.pem_root_certs = authority_.CertificatePem();
    tls.pem_key_cert_pairs = {{plane_certificate_.KeyPem(), plane_certificate_.CertificatePem()}};
    plane_ = std::make_unique<FakeControlPlane>(0, grpc::SslServerCredentials(tls));
    plane_->Send(Document("first"));
  }

  static std::string Write(const std::string& name, const std::string& pem) {
    const std::string path = testing::TempDir() + "/flagd_sync_" + name + ".pem";
    EXPECT_THAT(WriteTextFile(path, pem), test::IsOk());
    return path;
  }

  // Names it as its certificate does.
  std::unique_ptr<FlagdSync> Connect(const test::TestCertificate& trusted, const test::TestCertificate& shown) {
    auto sync = FlagdSync::Start(
        {.target = "localhost:" + std::to_string(plane_->port()),
         .tls = true,
         .ca_file = Write("ca", trusted.CertificatePem()),
         .certificate_file = Write("certificate", shown.CertificatePem()),
         .key_file = Write("key", shown.KeyPem()),
         .initial_backoff = std::chrono::milliseconds(2),
         .max_backoff = std::chrono::milliseconds(20)},
        clock_, [] { return 0.5; }, deliveries_.Callback());
    EXPECT_THAT(sync, test::IsOk());
    return *std::move(sync);
  }

  // Several attempts, and none that brought anything.
  static void ExpectRefused(const FlagdSync& sync) {
    Await([&] { return sync.status().streams > 3; });
    EXPECT_FALSE(sync.status().connected);
    EXPECT_EQ(sync.status().updates, 0);
    EXPECT_NE(sync.status().last_error, "");
  }

  const test::TestCertificate authority_{"authority"}, stranger_{"stranger"};
  const test::TestCertificate plane_certificate_{"plane", &authority_}, client_certificate_{"client", &authority_};
  const test::TestCertificate forged_{"client", &stranger_};
  std::unique_ptr<FakeControlPlane> plane_;
};

TEST_F(FlagdSyncTlsTest, BothSidesShowACertificateOfTheAuthority) {
  const auto sync = Connect(authority_, client_certificate_);
  EXPECT_THAT(deliveries_.Wait(1), ElementsAre("first"));
  EXPECT_TRUE(sync->status().connected);
}

TEST_F(FlagdSyncTlsTest, AControlPlaneOfAnotherAuthorityIsNotAsked) {
  ExpectRefused(*Connect(stranger_, client_certificate_));
}

TEST_F(FlagdSyncTlsTest, AClientOfAnotherAuthorityIsNotLetIn) { ExpectRefused(*Connect(authority_, forged_)); }

TEST_F(FlagdSyncTest, RefusesToStartWithoutWhatItNeeds) {
  const auto start = [&](FlagdSyncOptions options) {
    return FlagdSync::Start(
               std::move(options), clock_, [] { return 0.0; }, deliveries_.Callback())
        .status();
  };
  using test::StatusIs;
  EXPECT_THAT(start({}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("target")));
  EXPECT_THAT(start({.target = "localhost:1", .tls = true, .ca_file = "/nowhere.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/nowhere.pem")));
  EXPECT_THAT(start({.target = "localhost:1", .certificate_file = "a.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("key")));
}

}  // namespace
}  // namespace sluice::services
