#include "config/yaml_tree.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>

#include "absl/status/status.h"
#include "base/strings.h"
#include "fmt/format.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/parser.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxNodes = 50'000;

absl::Status SyntaxFault(const std::string& file, int line, std::string_view what, std::string_view allowed) {
  return absl::InvalidArgumentError(fmt::format("{}:{}: syntax: {}; allowed: {}", file, line, what, allowed));
}

// Thrown through yaml-cpp's parser and caught in ParseYaml: there is no other way to stop it.
struct Refusal {
  int line;
  std::string what, allowed;
};

int LineOf(const YAML::Mark& mark) { return mark.line + 1; }

class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) throw Refusal{LineOf(mark), "a second document", "one document in a file"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { Leaf({.line = LineOf(mark)}); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refusal{LineOf(mark), "an alias (*name)", "the value written out"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    if (tag != "?" && tag != "!" && !tag.empty()) {
      throw Refusal{LineOf(mark), fmt::format("the tag {}", tag), "values without tags"};
    }
    Leaf({.kind = YamlNode::Kind::kScalar, .line = LineOf(mark), .quoted = tag == "!", .text = value});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    Open({.kind = YamlNode::Kind::kList, .line = LineOf(mark)});
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    Open({.kind = YamlNode::Kind::kMap, .line = LineOf(mark)});
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    YamlNode node;
    std::optional<YamlMember> key;  // maps: the key whose value comes next
  };

  void Open(YamlNode node) {
    if (open_.size() >= kMaxDepth) {
      throw Refusal{node.line, "values nested too deeply", fmt::format("{} levels", kMaxDepth)};
    }
    RefuseAsKey(node);
    open_.push_back({std::move(node), std::nullopt});
  }

  void Close() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    Attach(std::move(node));
  }

  void Leaf(YamlNode node) { Attach(std::move(node)); }

  void RefuseAsKey(const YamlNode& node) const {
    if (!open_.empty() && open_.back().node.kind == YamlNode::Kind::kMap && !open_.back().key) {
      throw Refusal{node.line, "a list or map as a key", "plain text as a key"};
    }
  }

  void Attach(YamlNode node) {
    if (++nodes_ > kMaxNodes) throw Refusal{node.line, "too many values", fmt::format("{} in a file", kMaxNodes)};
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::kList) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.key) {
      parent.key = YamlMember{std::move(node.text), node.line, {}};
    } else {
      parent.key->value = std::move(node);
      parent.node.members.push_back(*std::move(parent.key));
      parent.key.reset();
    }
  }

  YamlNode root_;
  std::vector<Level> open_;
  size_t nodes_ = 0;
  int documents_ = 0;
};

// yaml-cpp replaces bad bytes and takes 0x04 for the end of the file, silently; so they are refused beforehand.
absl::Status CheckBytes(const std::string& file, const std::string& text) {
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(fmt::format("{}: larger than 1 MiB; allowed: at most 1 MiB", file));
  }
  size_t begin = 0;
  for (int line = 1; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view row(text.data() + begin, end - begin);
    if (!IsValidUtf8(row)) return SyntaxFault(file, line, "bytes that are not UTF-8", "UTF-8 text");
    for (const char c : row) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte < 0x20 && c != '\t' && c != '\r') || byte == 0x7f) {
        return SyntaxFault(file, line, fmt::format("the control character 0x{:02x}", byte), "printable text");
      }
    }
    begin = end + 1;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<YamlNode> ParseYaml(const std::string& file, const std::string& text) {
  if (absl::Status bytes = CheckBytes(file, text); !bytes.ok()) return bytes;
  TreeBuilder builder;
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refusal& refusal) {
    return SyntaxFault(file, refusal.line, refusal.what, refusal.allowed);
  } catch (const YAML::Exception& e) {
    return SyntaxFault(file, std::max(LineOf(e.mark), 1), e.msg, "YAML 1.2");
  } catch (const std::exception& e) {  // yaml-cpp also lets a few standard ones escape
    return SyntaxFault(file, 1, e.what(), "YAML 1.2");
  }
  return builder.TakeRoot();
}

absl::StatusOr<YamlNode> LoadYamlFile(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(fmt::format("{}: cannot be read: no such file", path));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(fmt::format("{}: not a regular file; allowed: a YAML file", path));
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::InvalidArgumentError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return ParseYaml(path, text);
}

}  // namespace sluice::config
