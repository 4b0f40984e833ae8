#include <functional>

#include "config/config_loader.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using testing::ElementsAre;

std::vector<std::string> FaultsAfter(const std::function<void(RuntimeConfig&)>& change) {
  RuntimeConfig config;
  config.models.models.push_back({.name = "default", .path = "m.gguf"});
  change(config);
  return TestFile("").Lines(ValidateRuntime(config));
}

TEST(ValidateRuntime, DefaultsWithAModelAreFit) {
  EXPECT_THAT(FaultsAfter([](RuntimeConfig&) {}), ElementsAre());
}

TEST(ValidateRuntime, AModelIsNeeded) {
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) { c.models.models.clear(); }),
              ElementsAre("configuration: models: no model is configured; allowed: a GGUF file, by models[].path, the "
                          "variable MODEL_PATH or --model NAME=FILE"));
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) { c.models.models[0].path = ""; }),
              ElementsAre("configuration: models: \"default\" has no path; allowed: a GGUF file, by models[].path, the "
                          "variable MODEL_PATH or --model NAME=FILE"));
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) { c.models.models[0].name = "a b"; }),
              ElementsAre("configuration: models: \"a b\" is not a name; allowed: 1 to 128 characters of A-Z a-z 0-9 . "
                          "_ : / @ + -"));
}

TEST(ValidateRuntime, PreloadedModelsMustFitTheCache) {
  const auto with = [](int preloaded, int others) {
    return [=](RuntimeConfig& c) {
      c.models.max_models = 2;
      c.models.models.assign(static_cast<size_t>(preloaded), {.name = "m", .path = "p", .preload = true});
      c.models.models.insert(c.models.models.end(), static_cast<size_t>(others),
                             {.name = "n", .path = "p", .preload = false});
    };
  };
  EXPECT_THAT(FaultsAfter(with(2, 5)), ElementsAre());
  EXPECT_THAT(FaultsAfter(with(3, 0)),
              ElementsAre("configuration: model_cache.maxModels: 2, but 3 models are preloaded "
                          "or pinned; allowed: at least that many, or preload: false"));
}

TEST(ValidateRuntime, BeyondLoopbackNeedsTlsAndKeys) {
  const auto beyond = [](bool tls, bool keys, bool insecure) {
    return FaultsAfter([=](RuntimeConfig& c) {
      c.server.grpc_address = "0.0.0.0:8001";
      if (tls) c.server.tls = {.certificate_file = "c", .key_file = "k"};
      if (keys) c.server.api_keys_file = "keys.yaml";
      c.server.insecure = insecure;
    });
  };
  EXPECT_THAT(beyond(true, true, false), ElementsAre());
  EXPECT_THAT(beyond(false, false, true), ElementsAre());
  const std::string allowed =
      "; allowed: a loopback address; or server.tls and server.api_keys_file; or server.insecure: true";
  const std::string reached =
      "configuration: server.grpc_address: \"0.0.0.0:8001\" can be reached from other machines ";
  EXPECT_THAT(beyond(false, false, false), ElementsAre(reached + "without TLS and authentication" + allowed));
  EXPECT_THAT(beyond(true, false, false), ElementsAre(reached + "without authentication" + allowed));
  EXPECT_THAT(beyond(false, true, false), ElementsAre(reached + "without TLS" + allowed));
}

TEST(ValidateRuntime, TlsFilesBelongTogether) {
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) { c.server.tls.certificate_file = "c"; }),
              ElementsAre("configuration: server.tls.key_file: is empty while its partner is set; allowed: "
                          "certificate_file and key_file together, or neither"));
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) { c.server.tls.key_file = "k"; }),
              ElementsAre("configuration: server.tls.certificate_file: is empty while its partner is set; allowed: "
                          "certificate_file and key_file together, or neither"));
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) { c.server.tls.client_ca_file = "ca"; }),
              ElementsAre("configuration: server.tls.client_ca_file: is set without TLS; allowed: mTLS with "
                          "certificate_file and key_file as well"));
}

TEST(ValidateRuntime, LimitsThatSpanKeys) {
  EXPECT_THAT(FaultsAfter([](RuntimeConfig& c) {
                c.default_max_tokens = 300;
                c.max_tokens_limit = 299;
                c.server.drain_grace = std::chrono::hours(2);
              }),
              ElementsAre("configuration: server.drain_grace_ms: 7200000 is out of range; allowed: 0 to 3600000",
                          "configuration: streaming.defaultMaxTokens: 300 is above streaming.maxTokens; allowed: at "
                          "most 299"));
}

TEST(ValidateRuntime, EtcdNeedsEndpointsOfOneKind) {
  const auto with = [](const state::EtcdOptions& etcd) {
    return FaultsAfter([&](RuntimeConfig& c) {
      c.state.store = StateStoreKind::kEtcd;
      c.state.etcd = etcd;
    });
  };
  EXPECT_THAT(with({.endpoints = {"http://127.0.0.1:2379", "http://[::1]:2379"}}), ElementsAre());
  EXPECT_THAT(with({.endpoints = {"https://e:1"}, .ca_file = "a", .certificate_file = "c", .key_file = "k"}),
              ElementsAre());
  EXPECT_THAT(with({}), ElementsAre("configuration: state.etcd.endpoints: is empty while state.store is etcd; allowed: "
                                    "http://HOST:PORT, https://HOST:PORT"));
  EXPECT_THAT(with({.endpoints = {"e:2379"}}),
              ElementsAre("configuration: state.etcd.endpoints: \"e:2379\" is not an endpoint; allowed: "
                          "http://HOST:PORT, https://HOST:PORT"));
  EXPECT_THAT(with({.endpoints = {"https://e:1", "http://e:2"}}),
              ElementsAre("configuration: state.etcd.endpoints: \"http://e:2\" is not https as the first one is; "
                          "allowed: http for all, or https for all"));
  EXPECT_THAT(with({.endpoints = {"http://e:1"}, .ca_file = "a"}),
              ElementsAre("configuration: state.etcd: has files for TLS, but endpoints without it; allowed: "
                          "https://HOST:PORT"));
  EXPECT_THAT(with({.endpoints = {"https://e:1"}, .key_file = "k", .username = "u"}),
              ElementsAre("configuration: state.etcd.cert_file: is empty while its partner is set; allowed: cert_file "
                          "and key_file together, or neither",
                          "configuration: state.etcd.password_file: is empty while its partner is set; allowed: "
                          "username and password_file together, or neither"));
  EXPECT_THAT(with({.endpoints = {"http://e:1"}, .prefix = "sluice"}),
              ElementsAre("configuration: state.etcd.prefix: \"sluice\" is not a prefix; allowed: a name between "
                          "slashes, such as /sluice/default/"));
}

}  // namespace
}  // namespace sluice::config
