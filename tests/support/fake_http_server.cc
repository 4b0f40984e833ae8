#include "tests/support/fake_http_server.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "base/check.h"
#include "fmt/format.h"

namespace sluice::test {

bool HttpPeer::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ssl_ != nullptr ? SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()))
                                         : send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool HttpPeer::Answer(int status, std::string_view body, const std::string& content_type) {
  return Send(fmt::format("HTTP/1.1 {} Status\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}", status,
                          content_type, body.size(), body));
}

bool HttpPeer::Chunk(std::string_view bytes) { return Send(fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes)); }

void HttpPeer::WaitUntilClosed() {
  while (Fill()) buffer_.clear();
}

// The socket itself is closed when the handler is through.
void HttpPeer::Close() { shutdown(socket_, SHUT_RDWR); }

void HttpPeer::Reset() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  shutdown(socket_, SHUT_RD);  // no next request: the socket is closed at once
}

bool HttpPeer::Fill() {
  std::array<char, 16384> bytes{};
  const ssize_t count = ssl_ != nullptr ? SSL_read(ssl_, bytes.data(), static_cast<int>(bytes.size()))
                                        : recv(socket_, bytes.data(), bytes.size(), 0);
  if (count <= 0) return false;
  buffer_.append(bytes.data(), static_cast<size_t>(count));
  return true;
}

bool HttpPeer::Read(HttpRequest* request) {
  size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!Fill() || std::isupper(static_cast<unsigned char>(buffer_[0])) == 0) return false;  // TLS, HTTP/2, ...
  }
  *request = {};
  size_t length = 0;
  for (size_t at = 0; at < end;) {
    const size_t line_end = buffer_.find("\r\n", at);
    const std::string line = buffer_.substr(at, line_end - at);
    if (at == 0) {
      const size_t space = line.find(' ');
      request->method = line.substr(0, space);
      request->path = line.substr(space + 1, line.rfind(' ') - space - 1);
    } else if (const size_t colon = line.find(':'); colon != std::string::npos) {
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      request->headers[name] = line.substr(std::min(line.size(), colon + 2));
    }
    at = line_end + 2;
  }
  if (const auto it = request->headers.find("content-length"); it != request->headers.end()) {
    std::from_chars(it->second.data(), it->second.data() + it->second.size(), length);
  }
  while (buffer_.size() < end + 4 + length) {
    if (!Fill()) return false;
  }
  request->body = buffer_.substr(end + 4, length);
  buffer_.erase(0, end + 4 + length);
  return true;
}

FakeHttpServer::FakeHttpServer(Handler handler, const TestCertificate* certificate) : handler_(std::move(handler)) {
  if (certificate != nullptr) {
    tls_.reset(SSL_CTX_new(TLS_server_method()));
    SLUICE_CHECK(SSL_CTX_use_certificate(tls_.get(), certificate->certificate()) == 1 &&
                     SSL_CTX_use_PrivateKey(tls_.get(), certificate->key()) == 1,
                 "a certificate with its key");
  }
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  SLUICE_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener_, 1024) == 0 &&
                   getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0,
               "a free port on the loopback");
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

FakeHttpServer::~FakeHttpServer() {
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    for (const int socket : sockets_) shutdown(socket, SHUT_RDWR);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  close(listener_);
}

void FakeHttpServer::Accept() {
  while (true) {
    const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) return;
    ++connections_;
    MutexLock lock(mutex_);
    sockets_.push_back(socket);
    threads_.emplace_back([this, socket] { Serve(socket); });
  }
}

void FakeHttpServer::Serve(int socket) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);  // OpenSSL writes without MSG_NOSIGNAL
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  {
    const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(tls_ == nullptr ? nullptr : SSL_new(tls_.get()), &SSL_free);
    if (ssl != nullptr) SSL_set_fd(ssl.get(), socket);
    HttpPeer peer(socket, ssl.get());
    HttpRequest request;
    const bool agreed = ssl == nullptr || SSL_accept(ssl.get()) == 1;
    while (agreed && peer.Read(&request)) {
      {
        MutexLock lock(mutex_);
        requests_.push_back(request);
      }
      handler_(request, peer);
    }
  }
  MutexLock lock(mutex_);
  std::erase(sockets_, socket);
  close(socket);
}

}  // namespace sluice::test
