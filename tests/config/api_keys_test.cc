#include "config/config_loader.h"
#include "fmt/format.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using test::IsOk;
using testing::ElementsAre;

const std::string kHash1(64, 'a');
const std::string kHash2 = std::string(63, '0') + "f";
constexpr const char* kHashAllowed = "; allowed: 64 lower-case hex digits, as `printf %s TOKEN | sha256sum` prints";

std::vector<std::string> FaultsOf(const std::string& text) {
  const TestFile file(text);
  return file.Lines(LoadApiKeys(file.path()).status());
}

TEST(LoadApiKeys, ReadsCallers) {
  const TestFile file(fmt::format(R"(
keys:
  - name: chat
    token_sha256: {}
    tenant: acme
  - name: ops
    token_sha256: "{}"
    tenant: ops
    highest_class: system
    models: [small, org/large]
    admin: true
)",
                                  kHash1, kHash2));
  const auto keys = LoadApiKeys(file.path());
  ASSERT_THAT(keys, IsOk());
  ASSERT_EQ(keys->size(), 2u);
  EXPECT_EQ((*keys)[0].name, "chat");
  EXPECT_EQ((*keys)[0].token_sha256, kHash1);
  EXPECT_EQ((*keys)[0].tenant, "acme");
  EXPECT_EQ((*keys)[0].highest_class, qos::QosClass::kInteractive);
  EXPECT_TRUE((*keys)[0].models.empty());
  EXPECT_FALSE((*keys)[0].admin);
  EXPECT_EQ((*keys)[1].highest_class, qos::QosClass::kSystem);
  EXPECT_THAT((*keys)[1].models, ElementsAre("small", "org/large"));
  EXPECT_TRUE((*keys)[1].admin);
}

TEST(LoadApiKeys, AnAllDigitHashStaysText) {
  const std::string digits(64, '7');
  const TestFile file(fmt::format("keys: [{{name: a, token_sha256: {}, tenant: t}}]", digits));
  const auto keys = LoadApiKeys(file.path());
  ASSERT_THAT(keys, IsOk());
  EXPECT_EQ((*keys)[0].token_sha256, digits);
}

TEST(LoadApiKeys, MalformedHashesAreRefusedAndNeverShown) {
  const auto with = [](const std::string& hash) {
    return FaultsOf(fmt::format("keys:\n- {{name: a, tenant: t, token_sha256: {}}}\n", hash));
  };
  const std::string where = "f.yaml:2: keys[0].token_sha256: ";
  EXPECT_THAT(with("my-secret-token"), ElementsAre(where + "is not a SHA-256 (it has 15 characters)" + kHashAllowed));
  EXPECT_THAT(with(std::string(64, 'A')),
              ElementsAre(where + "is not a SHA-256 (it has other characters)" + kHashAllowed));
  EXPECT_THAT(with("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
              ElementsAre(where + "is the SHA-256 of an empty token" + kHashAllowed));
}

TEST(LoadApiKeys, DuplicatesAreRefused) {
  EXPECT_THAT(FaultsOf(fmt::format("keys:\n- {{name: a, tenant: t, token_sha256: {0}}}\n- name: a\n  tenant: u\n"
                                   "  token_sha256: {0}\n",
                                   kHash1)),
              ElementsAre("f.yaml:3: keys[1].name: is the same as in keys[0]; allowed: one entry with it",
                          "f.yaml:5: keys[1].token_sha256: is the same as in keys[0]; allowed: one entry with it"));
}

TEST(LoadApiKeys, RequiredAndUnknownKeys) {
  EXPECT_THAT(FaultsOf("keys:\n- {highest_class: king, token: x}\n"),
              ElementsAre("f.yaml:2: keys[0].name: is missing; allowed: a name for logs",
                          std::string("f.yaml:2: keys[0].token_sha256: is missing") + kHashAllowed,
                          "f.yaml:2: keys[0].tenant: is missing; allowed: the tenant that this caller acts for",
                          "f.yaml:2: keys[0].highest_class: \"king\" is not known; allowed: system, interactive, "
                          "standard, batch",
                          "f.yaml:2: keys[0].token: unknown key; allowed: admin, highest_class, models, name, tenant, "
                          "token_sha256"));
}

TEST(LoadApiKeys, NobodyMayEnterIsAFault) {
  for (const char* text : {"{}", "keys: []", "keys:"}) {
    EXPECT_THAT(FaultsOf(text), ElementsAre("f.yaml:1: keys: has no entry; allowed: 1 to 10000 entries")) << text;
  }
}

}  // namespace
}  // namespace sluice::config
