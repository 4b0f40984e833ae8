#include "flags/bucket.h"

#include "flags/flag.h"
#include "flags/md5.h"

namespace sluice::flags {
namespace {

// The first eight hex digits of the digest, read as a number.
uint32_t FirstFourBytes(const Md5Digest& d) {
  return uint32_t{d[0]} << 24 | uint32_t{d[1]} << 16 | uint32_t{d[2]} << 8 | uint32_t{d[3]};
}

}  // namespace

uint32_t BucketV2(std::string_view salt, std::string_view targeting_key) {
  return FirstFourBytes(Md5(salt, "-", targeting_key)) % kBuckets;
}

uint32_t BucketV1(std::string_view salt, std::string_view targeting_key) {
  return FirstFourBytes(Md5(targeting_key, salt)) % 100;
}

}  // namespace sluice::flags
