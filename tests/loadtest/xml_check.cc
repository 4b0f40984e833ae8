#include "tests/loadtest/xml_check.h"

#include <cctype>
#include <set>
#include <vector>

#include "base/strings.h"

namespace sluice::loadtest {
namespace {

class Checker {
 public:
  explicit Checker(std::string_view xml) : xml_(xml) {}

  std::string Run() {
    if (!IsValidUtf8(xml_)) return "not UTF-8";
    while (at_ < xml_.size() && error_.empty()) xml_[at_] == '<' ? Tag() : Character(/*in_attribute=*/false);
    if (error_.empty() && !open_.empty()) Fail("not closed: " + open_.back());
    if (error_.empty() && roots_ != 1) Fail(std::to_string(roots_) + " root elements");
    return error_;
  }

 private:
  void Fail(const std::string& what) {
    if (error_.empty()) error_ = what + " near: " + std::string(xml_.substr(at_ < 40 ? 0 : at_ - 40, 80));
  }
  bool Take(std::string_view text) {
    if (xml_.substr(at_, text.size()) != text) return false;
    at_ += text.size();
    return true;
  }
  void Spaces() {
    while (at_ < xml_.size() && std::isspace(static_cast<unsigned char>(xml_[at_])) != 0) ++at_;
  }
  std::string Name() {
    const size_t start = at_;
    const auto fits = [this](char c) {
      return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || c == ':' ||
             (std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '-');
    };
    while (at_ < xml_.size() && fits(xml_[at_])) ++at_;
    if (start == at_ || std::isalpha(static_cast<unsigned char>(xml_[start])) == 0) Fail("no name");
    return std::string(xml_.substr(start, at_ - start));
  }
  void Character(bool in_attribute) {
    const unsigned char c = static_cast<unsigned char>(xml_[at_]);
    if (c < 0x20 && c != '\n' && c != '\t') return Fail("control character");
    if (!in_attribute && open_.empty() && std::isspace(c) == 0) return Fail("text outside the root");
    if (xml_.substr(at_, 3) == "]]>") return Fail("]]> in text");
    if (c == '<') return Fail("< in an attribute");
    if (c != '&') {
      ++at_;
      return;
    }
    for (const char* entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&#39;"}) {
      if (Take(entity)) return;
    }
    Fail("unknown entity");
  }
  void Attributes() {
    std::set<std::string> seen;
    for (Spaces(); error_.empty() && at_ < xml_.size() && xml_[at_] != '>' && xml_[at_] != '/'; Spaces()) {
      const std::string name = Name();
      if (!seen.insert(name).second) Fail("attribute twice: " + name);
      if (!Take("=\"")) return Fail("attribute without a quoted value");
      while (at_ < xml_.size() && error_.empty() && xml_[at_] != '"') Character(/*in_attribute=*/true);
      if (!Take("\"")) return Fail("attribute does not end");
    }
  }
  void Tag() {
    if (Take("</")) {
      const std::string name = Name();
      if (open_.empty() || open_.back() != name) return Fail("closes what is not open: " + name);
      open_.pop_back();
      if (!Take(">")) Fail("closing tag does not end");
      return;
    }
    ++at_;
    const std::string name = Name();
    if (open_.empty()) ++roots_;
    Attributes();
    if (Take("/>")) return;
    if (!Take(">")) return Fail("tag does not end");
    open_.push_back(name);
  }

  std::string_view xml_;
  size_t at_ = 0;
  int roots_ = 0;
  std::vector<std::string> open_;
  std::string error_;
};

}  // namespace

std::string XmlError(std::string_view xml) {
  constexpr std::string_view kDoctype = "<!DOCTYPE html>";
  if (xml.substr(0, kDoctype.size()) == kDoctype) xml.remove_prefix(kDoctype.size());
  return Checker(xml).Run();
}

}  // namespace sluice::loadtest
