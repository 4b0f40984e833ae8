#include "base/digest.h"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "fmt/format.h"

namespace sluice {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    SLUICE_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "SHA-256 is available");
  }
  void Add(const void* bytes, size_t size) { EVP_DigestUpdate(context_.get(), bytes, size); }
  std::string Hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string hex;
    for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace

std::string Sha256Hex(std::string_view bytes) {
  Sha256 digest;
  digest.Add(bytes.data(), bytes.size());
  return digest.Hex();
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr) return absl::NotFoundError(fmt::format("cannot read '{}': {}", path, std::strerror(errno)));
  Sha256 digest;
  std::vector<char> buffer(1 << 20);
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), file.get())) > 0;) digest.Add(buffer.data(), n);
  if (std::ferror(file.get()) != 0) return absl::DataLossError(fmt::format("reading '{}' failed", path));
  return digest.Hex();
}

}  // namespace sluice
