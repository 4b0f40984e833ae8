#include "base/thread_name.h"

#include <pthread.h>

#include <array>

namespace sluice {

void NameThisThread(const char* name) { (void)pthread_setname_np(pthread_self(), name); }

ScopedThreadName::ScopedThreadName(const char* name) {
  std::array<char, 16> now{};
  if (pthread_getname_np(pthread_self(), now.data(), now.size()) == 0) before_ = now.data();
  NameThisThread(name);
}

ScopedThreadName::~ScopedThreadName() { NameThisThread(before_.c_str()); }

}  // namespace sluice
