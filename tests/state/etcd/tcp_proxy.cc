#include "tests/state/etcd/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <utility>
#include <vector>

#include "base/check.h"

namespace sluice::state {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// False: the connection is over.
bool Pass(int from, int to) {
  std::array<char, 16384> part{};
  const ssize_t n = read(from, part.data(), part.size());
  if (n <= 0) return false;
  for (ssize_t sent = 0; sent < n;) {
    const ssize_t some = send(to, part.data() + sent, static_cast<size_t>(n - sent), MSG_NOSIGNAL);
    if (some <= 0) return false;
    sent += some;
  }
  return true;
}

}  // namespace

TcpProxy::TcpProxy(const std::string& target)
    : target_port_(std::stoi(target.substr(target.rfind(':') + 1))),
      listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  SLUICE_CHECK(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0, "a port");
  SLUICE_CHECK(listen(listener_.get(), 64) == 0, "it listens");
  SLUICE_CHECK(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0, "its number");
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

TcpProxy::~TcpProxy() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  Set(Way::kCut);
  thread_.join();
}

void TcpProxy::Set(Way way) {
  {
    MutexLock lock(mu_);
    way_ = way;
  }
  const uint64_t one = 1;
  SLUICE_CHECK(write(wake_.get(), &one, sizeof(one)) == sizeof(one), "woken");
}

void TcpProxy::Accept(std::list<Pair>& pairs, Way way) const {
  Pair pair{.client = OwnedFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)),
            .server = OwnedFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  const sockaddr_in address = Loopback(target_port_);
  if (way == Way::kCut || !pair.client.valid()) return;
  if (connect(pair.server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return;
  pairs.push_back(std::move(pair));
}

void TcpProxy::Run() {
  std::list<Pair> pairs;
  while (true) {
    Way way = Way::kOpen;
    {
      MutexLock lock(mu_);
      if (stopping_) return;
      way = way_;
    }
    if (way == Way::kCut) pairs.clear();
    const short to_server = way == Way::kOpen || way == Way::kNoAnswers ? POLLIN : 0;
    const short to_client = way == Way::kOpen ? POLLIN : 0;
    std::vector<pollfd> waits = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const Pair& pair : pairs) {
      // A negative number: poll looks away, also from a hang-up.
      waits.push_back({to_server == 0 ? -1 : pair.client.get(), to_server, 0});
      waits.push_back({to_client == 0 ? -1 : pair.server.get(), to_client, 0});
    }
    poll(waits.data(), waits.size(), -1);
    uint64_t count = 0;
    if (read(wake_.get(), &count, sizeof(count)) > 0) continue;  // another way now
    size_t i = 2;
    for (auto pair = pairs.begin(); pair != pairs.end(); i += 2) {
      const bool lives = (waits[i].revents == 0 || Pass(pair->client.get(), pair->server.get())) &&
                         (waits[i + 1].revents == 0 || Pass(pair->server.get(), pair->client.get()));
      pair = lives ? std::next(pair) : pairs.erase(pair);
    }
    if (waits[1].revents != 0) Accept(pairs, way);
  }
}

}  // namespace sluice::state
