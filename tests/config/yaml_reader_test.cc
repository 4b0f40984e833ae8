#include "config/yaml_reader.h"

#include "tests/config/config_test_support.h"
#include "tests/support/status_matchers.h"

namespace sluice::config {
namespace {

using test::IsOk;
using testing::ElementsAre;

// One of everything, read from `text`.
struct Sample {
  bool flag = false;
  int count = 7;
  double factor = 1.5;
  Duration wait = std::chrono::milliseconds(5);
  uint32_t bps = 0;
  std::string text = "default", name = "default", address = "127.0.0.1:1";
  int word = 0;
  std::vector<std::string> names, folders;
  std::vector<int> inner;
};

absl::Status ReadSample(const std::string& text, Sample* out, const TestVariables& variables = {}) {
  const absl::StatusOr<YamlNode> tree = ParseYaml("f.yaml", text);
  if (!tree.ok()) return tree.status();
  Faults faults("f.yaml");
  const Environment environment = Env(variables);
  Variables overrides(environment, faults);
  {
    Section root(&*tree, tree->line, "", faults, &overrides);
    Section top = root.Map("top");
    top.Bool("flag", &out->flag);
    top.Integer("count", 1, 10, &out->count);
    top.Number("factor", 1, 2.5, &out->factor);
    top.Millis("wait_ms", 0, 1000, &out->wait);
    top.PercentAsBps("share", &out->bps);
    top.Text("text", 8, &out->text);
    top.Name("name", &out->name);
    top.Address("address", false, &out->address);
    top.Choice<int>("word", {{"one", 1}, {"two", 2}}, &out->word);
    top.Names("names", 2, &out->names);
    top.Paths("folders", 2, &out->folders);
    top.Each("inner", 2, [&](Section& item) {
      int value = 0;
      item.Require("value", "a whole number from 0 to 9");
      item.Integer("value", 0, 9, &value);
      out->inner.push_back(value);
    });
  }
  overrides.RefuseUnknown(NamesOf(variables), {"top"});
  return faults.ToStatus();
}

std::vector<std::string> FaultsOf(const std::string& text, const TestVariables& variables = {}) {
  Sample sample;
  return TestFile("").Lines(ReadSample(text, &sample, variables));
}

TEST(Section, ReadsEveryType) {
  Sample s;
  ASSERT_THAT(ReadSample(R"(
top:
  flag: yes
  count: 10
  factor: 2.5
  wait_ms: 250
  share: 0.01
  text: "a: b"
  name: org/model-1
  address: "[::1]:80"
  word: two
  names: [a, b]
  folders: [/a, "b c"]
  inner: [{value: 1}, {value: 9}]
)",
                         &s),
              IsOk());
  EXPECT_TRUE(s.flag);
  EXPECT_EQ(s.count, 10);
  EXPECT_EQ(s.factor, 2.5);
  EXPECT_EQ(s.wait, std::chrono::milliseconds(250));
  EXPECT_EQ(s.bps, 1u);
  EXPECT_EQ(s.text, "a: b");
  EXPECT_EQ(s.name, "org/model-1");
  EXPECT_EQ(s.address, "[::1]:80");
  EXPECT_EQ(s.word, 2);
  EXPECT_THAT(s.names, ElementsAre("a", "b"));
  EXPECT_THAT(s.folders, ElementsAre("/a", "b c"));
  EXPECT_THAT(s.inner, ElementsAre(1, 9));
}

TEST(Section, AbsentKeysAndEmptySectionsKeepTheDefaults) {
  for (const char* text : {"{}", "top:\n", "top: {}\n", "top: {names: , folders: , inner: }\n"}) {
    Sample s;
    ASSERT_THAT(ReadSample(text, &s), IsOk()) << text;
    EXPECT_EQ(s.count, 7);
    EXPECT_EQ(s.text, "default");
    EXPECT_TRUE(s.inner.empty());
  }
}

TEST(Section, WrongTypesSayWhatIsAllowed) {
  EXPECT_THAT(FaultsOf("top:\n  flag: 1\n  count: many\n  factor: .nan\n  wait_ms: 30s\n  share: 0.005\n"),
              ElementsAre("f.yaml:2: top.flag: \"1\" is not a boolean; allowed: true or false",
                          "f.yaml:3: top.count: \"many\" is not a whole number; allowed: a whole number from 1 to 10",
                          "f.yaml:4: top.factor: \".nan\" is not a finite number; allowed: a number from 1 to 2.5",
                          "f.yaml:5: top.wait_ms: \"30s\" is not a whole number; allowed: a whole number of "
                          "milliseconds from 0 to 1000",
                          "f.yaml:6: top.share: \"0.005\" has more than two decimals; allowed: 0 to 100 (percent) in "
                          "steps of 0.01"));
  EXPECT_THAT(
      FaultsOf("top:\n  text: 123456789\n  name: a b\n  address: here\n  word: three\n"),
      ElementsAre(
          "f.yaml:2: top.text: has 9 bytes; allowed: text of at most 8 bytes",
          "f.yaml:3: top.name: \"a b\" is not a name; allowed: 1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -",
          "f.yaml:4: top.address: \"here\" is not an address; allowed: HOST:PORT or [IPV6]:PORT, port 0 to "
          "65535",
          "f.yaml:5: top.word: \"three\" is not known; allowed: one, two"));
}

TEST(Section, WrongShapesSayWhatIsAllowed) {
  EXPECT_THAT(FaultsOf("top: [1]\n"), ElementsAre("f.yaml:1: top: is a list; allowed: a map of keys and values"));
  EXPECT_THAT(FaultsOf("just text\n"), ElementsAre("f.yaml:1: is a single value; allowed: a map of keys and values"));
  EXPECT_THAT(FaultsOf("top:\n  count: {a: 1}\n  flag: [true]\n  text:\n  word: ~\n"),
              ElementsAre("f.yaml:2: top.count: is a map; allowed: a whole number from 1 to 10",
                          "f.yaml:3: top.flag: is a list; allowed: true or false",
                          "f.yaml:4: top.text: has no value; allowed: text of at most 8 bytes",
                          "f.yaml:5: top.word: has no value; allowed: one, two"));
  EXPECT_THAT(FaultsOf("top:\n  count: \"3\"\n"),
              ElementsAre("f.yaml:2: top.count: \"3\" is text in quotes; allowed: a whole number from 1 to 10"));
  EXPECT_THAT(FaultsOf("top:\n  names: a\n  folders: [a, b, c]\n"),
              ElementsAre("f.yaml:2: top.names: is a single value; allowed: a list of at most 2 entries",
                          "f.yaml:3: top.folders: has too many entries; allowed: a list of at most 2 entries"));
  EXPECT_THAT(
      FaultsOf("top:\n  names:\n  - a\n  - [b]\n  folders: ['']\n"),
      ElementsAre("f.yaml:4: top.names[1]: is a list; allowed: 1 to 128 characters of A-Z a-z 0-9 . _ : / @ + -",
                  "f.yaml:5: top.folders[0]: is empty; allowed: a path"));
  EXPECT_THAT(FaultsOf("top:\n  inner:\n  - 3\n  - {valu: 3}\n"),
              ElementsAre("f.yaml:3: top.inner[0]: is a single value; allowed: a map of keys and values",
                          "f.yaml:4: top.inner[1].value: is missing; allowed: a whole number from 0 to 9",
                          "f.yaml:4: top.inner[1].valu: unknown key (did you mean value?); allowed: value"));
  EXPECT_THAT(FaultsOf("top:\n  text: \"a\\nb\"\n"),
              ElementsAre("f.yaml:2: top.text: \"a\\x0ab\" has a control character; allowed: text of at most 8 bytes"));
}

TEST(Section, UnknownAndDuplicateKeys) {
  EXPECT_THAT(
      FaultsOf("top:\n  flga: true\ntopp: {}\n"),
      ElementsAre("f.yaml:2: top.flga: unknown key (did you mean flag?); allowed: address, count, factor, flag, "
                  "folders, inner, name, names, share, text, wait_ms, word",
                  "f.yaml:3: topp: unknown key (did you mean top?); allowed: top"));
  EXPECT_THAT(FaultsOf("temperature: 1\n"), ElementsAre("f.yaml:1: temperature: unknown key; allowed: top"));
  EXPECT_THAT(FaultsOf("\"a\\nb\": 1\n"), ElementsAre("f.yaml:1: \"a\\x0ab\": unknown key; allowed: top"));
  EXPECT_THAT(FaultsOf("top:\n  count: 1\n\n  count: 2\n"),
              ElementsAre("f.yaml:4: top.count: given twice (first in line 2); allowed: once"));
}

TEST(Section, TheEnvironmentWinsAndBothAreChecked) {
  Sample s;
  ASSERT_THAT(ReadSample("top: {count: 2, text: file, flag: true}\n", &s,
                         {{"SLUICE_TOP_COUNT", "3"},
                          {"SLUICE_TOP_TEXT", ""},
                          {"SLUICE_TOP_FLAG", "0"},
                          {"SLUICE_TOP_WAIT_MS", "9"},
                          {"SLUICE_TOP_FOLDERS", "/a::/b"}}),
              IsOk());
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.text, "");
  EXPECT_FALSE(s.flag);
  EXPECT_EQ(s.wait, std::chrono::milliseconds(9));
  EXPECT_THAT(s.folders, ElementsAre("/a", "/b"));
  EXPECT_THAT(FaultsOf("top: {count: x}\n", {{"SLUICE_TOP_COUNT", "99"}, {"SLUICE_TOP_FLAG", "maybe"}}),
              ElementsAre("f.yaml:1: top.count: \"x\" is not a whole number; allowed: a whole number from 1 to 10",
                          "environment: SLUICE_TOP_FLAG: \"maybe\" is not a boolean; allowed: true or false",
                          "environment: SLUICE_TOP_COUNT: \"99\" is out of range; allowed: a whole number from 1 to "
                          "10"));
}

TEST(Variables, UnknownOnesThatLookLikeKeysAreFaults) {
  EXPECT_THAT(FaultsOf("{}", {{"SLUICE_TOP_CUONT", "3"}, {"SLUICE_TOP_OTHER_THING", "3"}}),
              ElementsAre("environment: SLUICE_TOP_CUONT: unknown variable (did you mean SLUICE_TOP_COUNT?); allowed: "
                          "SLUICE_ and the path of a key, as listed in docs/configuration.md",
                          "environment: SLUICE_TOP_OTHER_THING: unknown variable; allowed: SLUICE_ and the path of a "
                          "key, as listed in docs/configuration.md"));
  // Not ours: the cache folder, tests, Kubernetes' links to a Service, other programs.
  EXPECT_THAT(FaultsOf("{}", {{"SLUICE_CACHE", "x"},
                              {"SLUICE_TEST_COUNT", "x"},
                              {"SLUICE_TOP_PORT", "x"},
                              {"SLUICE_TOP_SERVICE_PORT_GRPC", "x"},
                              {"SLUICE_TOP_PORT_8001_TCP_ADDR", "x"},
                              {"TOP_COUNT", "x"},
                              {"SLUICE_ARBITRARY_SETTING_OF_OTHERS", "x"}}),
              ElementsAre());
}

TEST(Faults, AreCappedAndSortedByLine) {
  Faults faults("f.yaml");
  faults.AddVariable("V", "bad", "good");
  for (int line = 150; line >= 1; --line) faults.Add(line, "k", "bad", "good");
  const std::vector<std::string> lines = TestFile("").Lines(faults.ToStatus());
  ASSERT_EQ(lines.size(), 101u);
  EXPECT_EQ(lines.front(), "f.yaml:52: k: bad; allowed: good");
  EXPECT_EQ(lines[99], "environment: V: bad; allowed: good");
  EXPECT_EQ(lines.back(), "f.yaml: 51 more faults");
}

}  // namespace
}  // namespace sluice::config
