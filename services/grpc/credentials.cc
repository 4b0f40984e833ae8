#include "services/grpc/credentials.h"

#include <fmt/format.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "base/status.h"
#include "base/strings.h"

namespace sluice::services {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<&BIO_free>>;
using Certificate = std::unique_ptr<X509, Deleter<&X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<&EVP_PKEY_free>>;

// A PEM file of the config, by the key that names it.
struct PemFile {
  std::string_view config_key;
  const std::string& path;

  absl::Status Bad(std::string_view why) const {
    return absl::InvalidArgumentError(ToAbsl(fmt::format("tls.{} '{}': {}", config_key, path, why)));
  }
};

std::string LastOpensslError() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "unknown reason" : reason;
}

absl::StatusOr<std::string> Read(const PemFile& file) {
  errno = 0;
  std::ifstream in(file.path, std::ios::binary);
  in.peek();  // a folder opens, but fails here
  if (!in.is_open() || in.bad()) return file.Bad(fmt::format("cannot be read: {}", std::strerror(errno)));
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Bio Memory(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// The first certificate; every further one of the file must parse as well.
absl::StatusOr<Certificate> ReadCertificates(const PemFile& file) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, Read(file));
  const Bio bio = Memory(text);
  ERR_clear_error();
  Certificate first(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (first == nullptr) return file.Bad(fmt::format("holds no PEM certificate ({})", LastOpensslError()));
  while (Certificate next{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string why = LastOpensslError();
  if (!at_end) return file.Bad(fmt::format("a further certificate in it is damaged ({})", why));
  return first;
}

absl::StatusOr<Key> ReadKey(const PemFile& file) {
  SLUICE_ASSIGN_OR_RETURN(const std::string text, Read(file));
  const Bio bio = Memory(text);
  bool encrypted = false;  // OpenSSL asks for a passphrase; without this callback it would ask on the terminal
  const auto no_passphrase = [](char*, int, int, void* asked) {
    *static_cast<bool*>(asked) = true;
    return -1;
  };
  ERR_clear_error();
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, &encrypted));
  const std::string why = LastOpensslError();
  if (encrypted) return file.Bad("is encrypted; a key without passphrase is needed");
  if (key == nullptr) return file.Bad(fmt::format("holds no PEM private key ({})", why));
  return key;
}

absl::Status CheckFiles(const config::TlsOptions& tls) {
  const PemFile certificate_file{"certificate_file", tls.certificate_file};
  const PemFile key_file{"key_file", tls.key_file};
  SLUICE_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificates(certificate_file));
  SLUICE_ASSIGN_OR_RETURN(const Key key, ReadKey(key_file));
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return key_file.Bad(fmt::format("does not belong to the certificate in '{}'", tls.certificate_file));
  }
  if (!tls.client_ca_file.empty()) {
    SLUICE_RETURN_IF_ERROR(ReadCertificates({"client_ca_file", tls.client_ca_file}).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const config::TlsOptions& tls) {
  if (!tls.enabled()) return grpc::InsecureServerCredentials();
  SLUICE_RETURN_IF_ERROR(CheckFiles(tls));

  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(tls.reload_interval).count();
  const bool mutual = !tls.client_ca_file.empty();
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          tls.key_file, tls.certificate_file, tls.client_ca_file,
          static_cast<unsigned int>(std::clamp<int64_t>(seconds, 1, 24 * 3600))));
  options.watch_identity_key_cert_pairs();
  if (mutual) options.watch_root_certs();
  options.set_cert_request_type(mutual ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                       : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  // TLS 1.2 is gRPC's own lower bound; tests/services/credentials_test.cc holds it to that.
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace sluice::services
