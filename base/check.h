// SLUICE_CHECK: for broken invariants only (a bug in Sluice). Prints file, line and message, then aborts.
// Anything the world can cause (input, files, peers, memory limits) is an absl::Status instead.
#pragma once

namespace sluice::internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression, const char* why);
}  // namespace sluice::internal

#define SLUICE_CHECK(condition, why) \
  ((condition) ? (void)0 : ::sluice::internal::CheckFailed(__FILE__, __LINE__, #condition, (why)))
