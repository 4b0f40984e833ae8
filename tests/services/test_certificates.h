// Certificates made on the spot, so that no private key lies in the repository.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "base/check.h"

namespace sluice::test {

// A P-256 key and a certificate for it: self-signed, or by an issuer. Valid for `localhost`, from 1970 to 2100.
class TestCertificate {
 public:
  explicit TestCertificate(const std::string& name, const TestCertificate* issuer = nullptr)
      : key_(EVP_EC_gen("P-256"), &EVP_PKEY_free), certificate_(X509_new(), &X509_free) {
    X509* const x = certificate_.get();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), ++NextSerial());
    ASN1_TIME_set_string(X509_getm_notBefore(x), "19700101000000Z");
    ASN1_TIME_set_string(X509_getm_notAfter(x), "21000101000000Z");
    X509_set_pubkey(x, key_.get());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const TestCertificate& signer = issuer == nullptr ? *this : *issuer;
    X509_set_issuer_name(x, X509_get_subject_name(signer.certificate_.get()));
    AddExtension(NID_basic_constraints, issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
    AddExtension(NID_subject_alt_name, "DNS:localhost");
    SLUICE_CHECK(X509_sign(x, signer.key_.get(), EVP_sha256()) > 0, "signed");
  }

  X509* certificate() const { return certificate_.get(); }
  EVP_PKEY* key() const { return key_.get(); }
  std::string CertificatePem() const {
    return Pem([this](BIO* out) { return PEM_write_bio_X509(out, certificate_.get()); });
  }
  std::string KeyPem() const {
    return Pem(
        [this](BIO* out) { return PEM_write_bio_PrivateKey(out, key_.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  }
  std::string EncryptedKeyPem() const {
    return Pem([this](BIO* out) {
      return PEM_write_bio_PrivateKey(out, key_.get(), EVP_aes_128_cbc(), nullptr, 0, nullptr,
                                      const_cast<char*>("passphrase"));
    });
  }

 private:
  static long& NextSerial() {
    static long serial = 0;
    return serial;
  }
  void AddExtension(int nid, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    SLUICE_CHECK(extension != nullptr && X509_add_ext(certificate_.get(), extension, -1) == 1, "extension added");
    X509_EXTENSION_free(extension);
  }
  template <typename Write>
  static std::string Pem(const Write& write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), &BIO_free);
    SLUICE_CHECK(write(out.get()) == 1, "PEM written");
    char* data = nullptr;
    const long size = BIO_get_mem_data(out.get(), &data);
    return {data, static_cast<size_t>(size)};
  }

  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
  std::unique_ptr<X509, decltype(&X509_free)> certificate_;
};

}  // namespace sluice::test
