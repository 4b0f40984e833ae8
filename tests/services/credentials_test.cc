#include "services/grpc/credentials.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/services/test_certificates.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using test::IsOk;
using test::StatusIs;
using test::TestCertificate;
using testing::AllOf;
using testing::HasSubstr;

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() : dir_(testing::TempDir() + "/sluice_credentials_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(dir_);
    tls_.certificate_file = Write("tls.crt", server_.CertificatePem());
    tls_.key_file = Write("tls.key", server_.KeyPem());
  }
  ~CredentialsTest() override { std::filesystem::remove_all(dir_); }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = dir_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  // Expects INVALID_ARGUMENT with the config key, the path and the reason in its message.
  void ExpectBad(const std::string& key, const std::string& path, const std::string& why) {
    EXPECT_THAT(MakeServerCredentials(tls_), StatusIs(absl::StatusCode::kInvalidArgument,
                                                      AllOf(HasSubstr("tls." + key), HasSubstr(path), HasSubstr(why))));
  }

  const std::string dir_;
  const TestCertificate ca_{"test CA"}, other_ca_{"other CA"};
  const TestCertificate server_{"localhost", &ca_}, client_{"client", &ca_}, stranger_{"stranger", &other_ca_};
  config::TlsOptions tls_;
};

TEST_F(CredentialsTest, WithoutTlsItIsInsecureAndReadsNoFile) {
  EXPECT_THAT(MakeServerCredentials(config::TlsOptions{}), IsOk());
}

TEST_F(CredentialsTest, NamesTheFileThatIsMissing) {
  tls_.key_file = dir_ + "/no.key";
  ExpectBad("key_file", tls_.key_file, "No such file or directory");
  tls_.certificate_file = dir_ + "/no.crt";
  ExpectBad("certificate_file", tls_.certificate_file, "No such file or directory");
}

TEST_F(CredentialsTest, NamesTheFileThatIsAFolder) {
  tls_.certificate_file = dir_;
  ExpectBad("certificate_file", dir_, "cannot be read");
}

TEST_F(CredentialsTest, RefusesFilesWithoutPem) {
  tls_.certificate_file = Write("empty.crt", "");
  ExpectBad("certificate_file", "empty.crt", "holds no PEM certificate");
  tls_.certificate_file = Write("swapped.crt", server_.KeyPem());
  ExpectBad("certificate_file", "swapped.crt", "holds no PEM certificate");
  tls_.certificate_file = Write("tls.crt", server_.CertificatePem());
  tls_.key_file = Write("garbage.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
  ExpectBad("key_file", "garbage.key", "holds no PEM private key");
}

TEST_F(CredentialsTest, RefusesADamagedCertificateLaterInTheChain) {
  tls_.certificate_file = Write("chain.crt", server_.CertificatePem() + ca_.CertificatePem());
  EXPECT_THAT(MakeServerCredentials(tls_), IsOk());
  std::string damaged = ca_.CertificatePem();
  damaged.erase(damaged.size() / 2, 8);
  tls_.certificate_file = Write("chain.crt", server_.CertificatePem() + damaged);
  ExpectBad("certificate_file", "chain.crt", "further certificate in it is damaged");
}

TEST_F(CredentialsTest, RefusesAnEncryptedKeyInsteadOfAsking) {
  tls_.key_file = Write("locked.key", server_.EncryptedKeyPem());
  ExpectBad("key_file", "locked.key", "encrypted");
}

TEST_F(CredentialsTest, RefusesTheKeyOfAnotherCertificate) {
  tls_.key_file = Write("client.key", client_.KeyPem());
  ExpectBad("key_file", "client.key", fmt::format("does not belong to the certificate in '{}'", tls_.certificate_file));
}

TEST_F(CredentialsTest, RefusesAClientCaWithoutCertificate) {
  tls_.client_ca_file = Write("ca.crt", "no certificate here\n");
  ExpectBad("client_ca_file", "ca.crt", "holds no PEM certificate");
}

// A gRPC server with the credentials, and handshakes by OpenSSL itself, so that a test chooses version and certificate.
class HandshakeTest : public CredentialsTest {
 protected:
  void Serve() {
    auto credentials = MakeServerCredentials(tls_);
    ASSERT_THAT(credentials, IsOk());
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", *credentials, &port_);
    builder.RegisterCallbackGenericService(&no_methods_);
    grpc_server_ = builder.BuildAndStart();
    ASSERT_NE(grpc_server_, nullptr);
  }

  // The subject that the server showed, or "" when the handshake (or the first read after it) failed.
  std::string Handshake(int max_version, const TestCertificate* client = nullptr) {
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free);
    SSL_CTX_set_security_level(context.get(), 0);  // else OpenSSL itself would refuse TLS 1.1
    SSL_CTX_set_min_proto_version(context.get(), TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context.get(), max_version);
    SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>("\x02h2"), 3);
    if (client != nullptr) {
      SSL_CTX_use_certificate_file(context.get(), Write("c.crt", client->CertificatePem()).c_str(), SSL_FILETYPE_PEM);
      SSL_CTX_use_PrivateKey_file(context.get(), Write("c.key", client->KeyPem()).c_str(), SSL_FILETYPE_PEM);
    }
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port_));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::string subject;
    const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), &SSL_free);
    SSL_set_fd(ssl.get(), fd);
    char first = 0;  // the server's HTTP/2 settings: under TLS 1.3 a refused client certificate shows only here
    if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 && SSL_connect(ssl.get()) == 1 &&
        SSL_read(ssl.get(), &first, 1) == 1) {
      X509* const shown = SSL_get1_peer_certificate(ssl.get());
      char name[64] = "";
      X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, name, sizeof name);
      X509_free(shown);
      subject = name;
    }
    ::close(fd);
    return subject;
  }

  int port_ = 0;
  grpc::CallbackGenericService no_methods_;
  std::unique_ptr<grpc::Server> grpc_server_;
};

TEST_F(HandshakeTest, SpeaksTls12And13AndNothingOlder) {
  ASSERT_NO_FATAL_FAILURE(Serve());
  EXPECT_EQ(Handshake(TLS1_3_VERSION), "localhost");
  EXPECT_EQ(Handshake(TLS1_2_VERSION), "localhost");
  EXPECT_EQ(Handshake(TLS1_1_VERSION), "");
  EXPECT_EQ(Handshake(TLS1_VERSION), "");
}

TEST_F(HandshakeTest, WithAClientCaOnlyItsCertificatesMayConnect) {
  tls_.client_ca_file = Write("ca.crt", ca_.CertificatePem());
  ASSERT_NO_FATAL_FAILURE(Serve());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_EQ(Handshake(version, &client_), "localhost");
    EXPECT_EQ(Handshake(version, nullptr), "");
    EXPECT_EQ(Handshake(version, &stranger_), "");
  }
}

// Waits for the watcher of the TLS library, which has a clock of its own; bounded by the test's time limit.
TEST_F(HandshakeTest, PicksUpARotatedCertificateWithoutARestart) {
  tls_.reload_interval = std::chrono::seconds(1);
  const std::string current = dir_ + "/current";
  const auto folder = [&](const std::string& name, const TestCertificate& certificate) {
    std::filesystem::create_directories(dir_ + "/" + name);
    Write(name + "/tls.crt", certificate.CertificatePem());
    Write(name + "/tls.key", certificate.KeyPem());
  };
  folder("v1", server_);
  std::filesystem::create_directory_symlink("v1", current);
  tls_.certificate_file = current + "/tls.crt";
  tls_.key_file = current + "/tls.key";
  ASSERT_NO_FATAL_FAILURE(Serve());
  ASSERT_EQ(Handshake(TLS1_3_VERSION), "localhost");

  const TestCertificate renewed("renewed", &ca_);
  folder("v2", renewed);
  std::filesystem::create_directory_symlink("v2", dir_ + "/next");
  std::filesystem::rename(dir_ + "/next", current);  // as Kubernetes swaps a Secret
  std::string shown;
  while ((shown = Handshake(TLS1_3_VERSION)) != "renewed") ASSERT_EQ(shown, "localhost");
}

}  // namespace
}  // namespace sluice::services
