// Reads what must be in a JSON object, and remembers when something was not. For records of the state store.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "base/clock.h"
#include "nlohmann/json.hpp"

namespace sluice::rollout {

// A value on the stack; `object` outlives it. Outputs of fields that are missing or of another type stay as they were.
class JsonFields {
 public:
  explicit JsonFields(const nlohmann::json& object) : object_(object), good_(object.is_object()) {}

  // Integers only; a negative one does not fit an unsigned field.
  template <typename Int>
  void Number(const char* name, Int* out) {
    const nlohmann::json* const v = Find(name);
    if (v == nullptr || !v->is_number_integer() || (std::is_unsigned_v<Int> && *v < 0)) return Fail();
    *out = v->get<Int>();
  }
  void Real(const char* name, double* out) {
    const nlohmann::json* const v = Find(name);
    if (v == nullptr || !v->is_number()) return Fail();
    *out = v->get<double>();
  }
  void Time(const char* name, WallTime* out) {
    int64_t nanos = 0;
    Number(name, &nanos);
    *out = WallTime(Duration(nanos));
  }
  void Text(const char* name, std::string* out) {
    const nlohmann::json* const v = Find(name);
    if (v == nullptr || !v->is_string()) return Fail();
    *out = v->get<std::string>();
  }
  void Texts(const char* name, size_t max_items, std::vector<std::string>* out) {
    const nlohmann::json* const v = Find(name);
    if (v == nullptr || !v->is_array() || v->size() > max_items) return Fail();
    for (const nlohmann::json& item : *v) {
      if (!item.is_string()) return Fail();
      out->push_back(item.get<std::string>());
    }
  }

  void Fail() { good_ = false; }
  bool good() const { return good_; }
  const nlohmann::json* Find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }

 private:
  const nlohmann::json& object_;
  bool good_;
};

}  // namespace sluice::rollout
