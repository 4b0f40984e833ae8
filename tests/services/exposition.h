// A strict reader of the Prometheus text format (0.0.4), for tests: what promtool would refuse fails here too.
#pragma once

#include <cctype>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace sluice::test {

class Exposition {
 public:
  // `error` stays empty when the text is well formed.
  explicit Exposition(const std::string& text) {
    if (text.empty() || text.back() != '\n') Fail("does not end with a line feed");
    std::istringstream in(text);
    for (std::string line; error.empty() && std::getline(in, line);) Line(line);
    if (error.empty()) CheckHistograms();
  }

  // By `name{label="value",...}` exactly as written.
  std::map<std::string, double> samples;
  std::map<std::string, std::string> types;
  std::string error;

 private:
  struct Bucket {
    double bound, count;
  };

  void Fail(const std::string& why) {
    if (error.empty()) error = why;
  }

  static size_t NameEnd(const std::string& s, size_t at, bool colons) {
    const size_t from = at;
    const auto fits = [&](char c) {
      return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (colons && c == ':') ||
             (at > from && std::isdigit(static_cast<unsigned char>(c)));
    };
    while (at < s.size() && fits(s[at])) ++at;
    return at;
  }

  void Line(const std::string& line) {
    if (line.rfind("# HELP ", 0) == 0) return;
    if (line.rfind("# TYPE ", 0) == 0) {
      std::istringstream in(line.substr(7));
      in >> family_ >> type_;
      static const std::set<std::string> kKnown = {"counter", "gauge", "histogram", "summary", "untyped"};
      if (kKnown.count(type_) == 0) return Fail("unknown type: " + line);
      if (!types.emplace(family_, type_).second) return Fail("second TYPE of " + family_);
      const bool total = family_.size() > 6 && family_.compare(family_.size() - 6, 6, "_total") == 0;
      if (type_ == "counter" && !total) Fail("counter without _total: " + family_);
      return;
    }
    if (line.empty() || line[0] == '#') return Fail("neither HELP nor TYPE nor sample: '" + line + "'");
    Sample(line);
  }

  void Sample(const std::string& line) {
    size_t at = NameEnd(line, 0, /*colons=*/true);
    const std::string name = line.substr(0, at);
    std::map<std::string, std::string> labels;
    if (at < line.size() && line[at] == '{' && !Labels(line, at, labels)) return Fail("bad labels: " + line);
    if (name.empty() || at >= line.size() || line[at] != ' ') return Fail("bad sample: " + line);
    const std::string number = line.substr(at + 1);
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    if (number.empty() || *end != '\0') return Fail("bad value: " + line);
    if (!samples.emplace(line.substr(0, at), value).second) return Fail("twice: " + line);
    if (!OfFamily(name)) return Fail("sample outside its family " + family_ + ": " + line);
    if (type_ == "counter" && !(value >= 0)) return Fail("negative counter: " + line);
    if (type_ == "histogram") Histogram(name, labels, value);
  }

  bool OfFamily(const std::string& name) const {
    if (name == family_) return type_ != "histogram";
    if (type_ != "histogram" && type_ != "summary") return false;
    return name == family_ + "_sum" || name == family_ + "_count" || name == family_ + "_bucket";
  }

  static bool Labels(const std::string& line, size_t& at, std::map<std::string, std::string>& labels) {
    do {
      const size_t from = ++at;
      at = NameEnd(line, at, /*colons=*/false);
      const std::string name = line.substr(from, at - from);
      if (name.empty() || line.compare(at, 2, "=\"") != 0) return false;
      std::string value;
      for (at += 2; at < line.size() && line[at] != '"'; ++at) {
        if (line[at] == '\\' && (++at >= line.size() || std::string("\\\"n").find(line[at]) == std::string::npos)) {
          return false;
        }
        value += line[at];
      }
      if (at >= line.size() || !labels.emplace(name, value).second) return false;
      ++at;
    } while (at < line.size() && line[at] == ',');
    return at < line.size() && line[at++] == '}';
  }

  void Histogram(const std::string& name, std::map<std::string, std::string> labels, double value) {
    const std::string le = labels["le"];
    labels.erase("le");
    std::string key = family_;
    for (const auto& [label, v] : labels) key += "," + label + "=" + v;
    if (name == family_ + "_count") counts_[key] = value;
    if (name == family_ + "_bucket") buckets_[key].push_back({std::strtod(le.c_str(), nullptr), value});
  }

  void CheckHistograms() {
    for (const auto& [key, count] : counts_) {
      const std::vector<Bucket>& buckets = buckets_[key];
      if (buckets.empty() || buckets.back().bound != std::numeric_limits<double>::infinity()) {
        return Fail("no +Inf bucket: " + key);
      }
      if (buckets.back().count != count) return Fail("+Inf bucket is not the count: " + key);
      for (size_t i = 1; i < buckets.size(); ++i) {
        if (buckets[i].bound <= buckets[i - 1].bound) return Fail("bounds do not ascend: " + key);
        if (buckets[i].count < buckets[i - 1].count) return Fail("buckets do not accumulate: " + key);
      }
    }
  }

  std::string family_, type_;
  std::map<std::string, double> counts_;
  std::map<std::string, std::vector<Bucket>> buckets_;
};

}  // namespace sluice::test
