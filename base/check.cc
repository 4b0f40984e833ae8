#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace sluice::internal {

void CheckFailed(const char* file, int line, const char* expression, const char* why) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s (%s)\n", file, line, expression, why);
  std::fflush(stderr);
  std::abort();
}

}  // namespace sluice::internal
