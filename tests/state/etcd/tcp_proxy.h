// A way to a server on loopback that a test can cut, or let hang in one direction.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/owned_fd.h"

namespace sluice::state {

// Thread-safe. One thread.
class TcpProxy {
 public:
  enum class Way {
    kOpen,
    kCut,       // connections are closed, new ones at once
    kSilent,    // nothing passes, nothing is closed
    kNoAnswers  // what the client sends passes, what the server answers does not
  };
  // `target`: "127.0.0.1:PORT".
  explicit TcpProxy(const std::string& target);
  ~TcpProxy();

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  // What was held back while kSilent or kNoAnswers passes later.
  void Set(Way way) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Pair {
    OwnedFd client, server;
  };
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  void Accept(std::list<Pair>& pairs, Way way) const;

  const int target_port_;
  OwnedFd listener_;
  int port_ = 0;
  OwnedFd wake_;  // an eventfd
  Mutex mu_;
  Way way_ ABSL_GUARDED_BY(mu_) = Way::kOpen;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace sluice::state
