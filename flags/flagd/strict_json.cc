#include "flags/flagd/strict_json.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "base/status.h"
#include "fmt/format.h"

namespace sluice::flags::flagd {
namespace {

using nlohmann::json;

absl::Status Fault(std::string_view path, std::string description) {
  return InvalidFields({{path.empty() ? "document" : std::string(path), std::move(description)}});
}

// Builds the tree itself, because the library's own builder keeps the last of two equal keys.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return Add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override { return Add(value) != nullptr; }
  bool string(string_t& value) override { return Add(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }  // not in JSON
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& key) override {
    if (open_.back().value->contains(key)) {
      open_.back().key = key;
      status_ = Fault(Here(), "the key appears twice");
      return false;
    }
    open_.back().key = std::move(key);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string_view before = text_.substr(0, std::min(position == 0 ? 0 : position - 1, text_.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    std::string_view what = error.what();
    what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
    // The library's text names line and column in its own way.
    if (const size_t at = what.find("column "); at != std::string_view::npos) {
      what.remove_prefix(std::min(what.find(": ", at) + 2, what.size()));
    }
    status_ = Fault(Here(), fmt::format("line {}, column {}: {}", line, before.size() - line_start + 1, what));
    return false;
  }

  absl::StatusOr<json> Result(bool ok) && {
    if (!ok && status_.ok()) status_ = Fault(Here(), "cannot be read as JSON");
    if (!ok) return status_;
    return std::move(root_);
  }

 private:
  struct Level {
    json* value;
    std::string key;  // of an object's member that comes next, or is open
  };

  json* Add(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back().value;
    if (parent.is_object()) return &(parent[open_.back().key] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool Open(json value) {
    if (open_.size() >= static_cast<size_t>(limits_.max_depth)) {
      status_ = Fault(Here(), fmt::format("is nested deeper than {} levels", limits_.max_depth));
      return false;
    }
    open_.push_back({Add(std::move(value)), {}});
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  std::string Here() const {
    std::string path;
    for (const Level& level : open_) {
      if (!level.value->is_array()) {
        if (!level.key.empty()) path = Path(path, level.key);
      } else {
        path = Path(path, level.value->empty() ? 0 : level.value->size() - (&level == &open_.back() ? 0 : 1));
      }
    }
    return path;
  }

  const std::string_view text_;
  const JsonLimits limits_;
  json root_;
  std::vector<Level> open_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<json> ParseStrictJson(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Fault("", fmt::format("got {} bytes; allowed up to {}", text.size(), limits.max_bytes));
  }
  Builder builder(text, limits);
  const bool ok = json::sax_parse(text, &builder);
  return std::move(builder).Result(ok);
}

std::string Path(std::string_view parent, std::string_view key) {
  const bool plain = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '$';
  });
  if (!plain) return fmt::format("{}[\"{}\"]", parent, key);
  return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
}

std::string Path(std::string_view parent, size_t index) { return fmt::format("{}[{}]", parent, index); }

}  // namespace sluice::flags::flagd
