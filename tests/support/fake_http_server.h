// An HTTP/1.1 server that does to its clients whatever a test says. Real sockets, a thread for each connection.
#pragma once

#include <openssl/ssl.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "tests/services/test_certificates.h"

namespace sluice::test {

struct HttpRequest {
  std::string method, path, body;
  std::map<std::string, std::string> headers;  // names in lower case
};

// The server's end of one connection, within a handler.
class HttpPeer {
 public:
  // `ssl` null: plain text.
  HttpPeer(int socket, SSL* ssl) : socket_(socket), ssl_(ssl) {}
  // False when the client is gone. Blocks while it does not read.
  bool Send(std::string_view bytes);
  bool Answer(int status, std::string_view body, const std::string& content_type = "application/json");
  // A stream: its head, then events, then its end.
  bool BeginStream() { return Send(kStreamHead); }
  bool Event(const std::string& data) { return Chunk("data: " + data + "\n\n"); }
  bool Chunk(std::string_view bytes);
  bool EndStream() { return Send("0\r\n\r\n"); }
  void WaitUntilClosed();  // by the client
  void Close();            // the connection ends where it is
  void Reset();            // with an RST
  bool Read(HttpRequest* request);

 private:
  static constexpr const char* kStreamHead =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  bool Fill();

  const int socket_;
  SSL* const ssl_;
  std::string buffer_;
};

// Thread-safe.
class FakeHttpServer {
 public:
  using Handler = std::function<void(const HttpRequest&, HttpPeer&)>;

  // With a certificate (for "localhost") it speaks TLS.
  explicit FakeHttpServer(Handler handler, const TestCertificate* certificate = nullptr);
  ~FakeHttpServer();

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  int connections() const { return connections_.load(); }
  std::vector<HttpRequest> requests() const {
    MutexLock lock(mutex_);
    return requests_;
  }

 private:
  void Accept();
  void Serve(int socket);

  const Handler handler_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> tls_{nullptr, &SSL_CTX_free};
  int listener_ = -1, port_ = 0;
  std::atomic<int> connections_{0};
  mutable Mutex mutex_;
  std::vector<HttpRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> sockets_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

}  // namespace sluice::test
