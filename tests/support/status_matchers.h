// gtest helpers for absl::Status (Debian's abseil has none).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::test {

inline absl::Status ToStatus(const absl::Status& s) { return s; }
template <typename T>
absl::Status ToStatus(const absl::StatusOr<T>& s) {
  return s.status();
}

// EXPECT_THAT(f(), IsOk());
MATCHER(IsOk, "is OK") {
  const absl::Status s = ToStatus(arg);
  *result_listener << s.ToString();
  return s.ok();
}

// EXPECT_THAT(f(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no such model")));
MATCHER_P2(StatusIsMatcher, code, message, "") {
  const absl::Status s = ToStatus(arg);
  *result_listener << s.ToString();
  return s.code() == code && testing::SafeMatcherCast<const std::string&>(message).Matches(std::string(s.message()));
}
template <typename M>
auto StatusIs(absl::StatusCode code, M message) {
  return StatusIsMatcher(code, message);
}
inline auto StatusIs(absl::StatusCode code) { return StatusIsMatcher(code, testing::A<const std::string&>()); }

}  // namespace sluice::test
