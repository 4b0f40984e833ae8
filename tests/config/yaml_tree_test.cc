#include "config/yaml_tree.h"

#include "base/strings.h"
#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using absl::StatusCode;
using test::IsOk;
using test::StatusIs;

std::string Fault(const std::string& text) {
  const absl::StatusOr<YamlNode> tree = ParseYaml("f.yaml", text);
  return tree.ok() ? "ok" : std::string(ToStd(tree.status().message()));
}

TEST(ParseYaml, KeepsLinesQuotesAndOrder) {
  const absl::StatusOr<YamlNode> tree = ParseYaml("f.yaml", "# comment\nb: 1\na:\n  - \"2\"\n  - {c: }\nb: yes\n");
  ASSERT_THAT(tree, IsOk());
  ASSERT_EQ(tree->members.size(), 3u);  // the duplicate is kept
  EXPECT_EQ(tree->members[0].key, "b");
  EXPECT_EQ(tree->members[0].line, 2);
  EXPECT_FALSE(tree->members[0].value.quoted);
  const YamlNode& list = tree->members[1].value;
  ASSERT_EQ(list.items.size(), 2u);
  EXPECT_TRUE(list.items[0].quoted);
  EXPECT_EQ(list.items[0].text, "2");
  EXPECT_EQ(list.items[1].line, 5);
  EXPECT_EQ(list.items[1].members[0].value.kind, YamlNode::Kind::kNull);
  EXPECT_EQ(tree->members[2].line, 6);
}

TEST(ParseYaml, EmptyTextIsNull) {
  for (const char* text : {"", "\n", "# only a comment\n", "---\n"}) {
    const absl::StatusOr<YamlNode> tree = ParseYaml("f.yaml", text);
    ASSERT_THAT(tree, IsOk());
    EXPECT_EQ(tree->kind, YamlNode::Kind::kNull) << text;
  }
}

TEST(ParseYaml, SyntaxFaultsNameTheLine) {
  EXPECT_EQ(Fault("a: 1\nb: [1, 2\n"), "f.yaml:3: syntax: end of sequence flow not found; allowed: YAML 1.2");
  EXPECT_EQ(Fault("a: 1\n\tb: 2\n").substr(0, 16), "f.yaml:2: syntax");
  EXPECT_EQ(Fault("a: 1\n---\nb: 1\n"), "f.yaml:2: syntax: a second document; allowed: one document in a file");
  EXPECT_EQ(Fault("a: &x 1\nb: *x\n"), "f.yaml:2: syntax: an alias (*name); allowed: the value written out");
  EXPECT_EQ(Fault("a: !!int 1\n"), "f.yaml:1: syntax: the tag tag:yaml.org,2002:int; allowed: values without tags");
  EXPECT_EQ(Fault("? [1]\n: 2\n"), "f.yaml:1: syntax: a list or map as a key; allowed: plain text as a key");
  EXPECT_EQ(Fault("a: 1\nb: \xff\n"), "f.yaml:2: syntax: bytes that are not UTF-8; allowed: UTF-8 text");
}

TEST(ParseYaml, AControlCharacterDoesNotCutTheFile) {
  // yaml-cpp reads 0x04 as the end, so that `b` would be lost without a word.
  EXPECT_EQ(Fault(std::string("a: 1\n\x04\nb: 2\n")),
            "f.yaml:2: syntax: the control character 0x04; allowed: printable text");
  EXPECT_EQ(Fault(std::string("a: 1\n\0b: 2\n", 11)),
            "f.yaml:2: syntax: the control character 0x00; allowed: printable text");
}

TEST(ParseYaml, RefusesBombsQuickly) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string n = std::to_string(i), before = "*a" + std::to_string(i - 1);
    bomb += "a" + n + ": &a" + n + " [" + before + ", " + before + ", " + before + ", " + before + "]\n";
  }
  EXPECT_EQ(Fault(bomb), "f.yaml:2: syntax: an alias (*name); allowed: the value written out");
  EXPECT_THAT(Fault(std::string(1 << 19, '[')), testing::StartsWith("f.yaml:1: syntax: "));
  std::string deep = "1";
  for (int i = 0; i < 33; ++i) deep = "{a: " + deep + "}";
  EXPECT_EQ(Fault(deep), "f.yaml:1: syntax: values nested too deeply; allowed: 32 levels");
  std::string many;
  for (int i = 0; i < 50'001; ++i) many += "- 1\n";
  EXPECT_EQ(Fault(many), "f.yaml:50001: syntax: too many values; allowed: 50000 in a file");
  EXPECT_EQ(Fault(std::string((1 << 20) + 1, ' ')), "f.yaml: larger than 1 MiB; allowed: at most 1 MiB");
}

TEST(LoadYamlFile, SaysWhyAFileCannotBeRead) {
  EXPECT_THAT(LoadYamlFile("no/such.yaml"),
              StatusIs(StatusCode::kNotFound, "no/such.yaml: cannot be read: no such file"));
  EXPECT_THAT(LoadYamlFile("/"), StatusIs(StatusCode::kInvalidArgument, "/: not a regular file; allowed: a YAML file"));
  const TestFile large(std::string(3 << 20, ' '));
  EXPECT_THAT(LoadYamlFile(large.path()),
              StatusIs(StatusCode::kInvalidArgument, testing::HasSubstr("larger than 1 MiB")));
}

}  // namespace
}  // namespace sluice::config
