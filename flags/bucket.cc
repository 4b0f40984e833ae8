#include "flags/bucket.h"

#include "flags/md5.h"
#include "fmt/format.h"

namespace sluice::flags {
namespace {

uint32_t BigEndian(const uint8_t* d) {
  return uint32_t{d[0]} << 24 | uint32_t{d[1]} << 16 | uint32_t{d[2]} << 8 | uint32_t{d[3]};
}

}  // namespace

std::string PercentText(RolloutBps bps) { return fmt::format("{:.6g} %", bps / 100.0); }

KeyHash HashKey(int hash_version, std::string_view salt, std::string_view targeting_key) {
  const Md5Digest digest = hash_version == 1 ? Md5(targeting_key, salt) : Md5(salt, "-", targeting_key);
  return {BigEndian(digest.data()), BigEndian(digest.data() + 4)};
}

uint32_t BucketV2(std::string_view salt, std::string_view targeting_key) {
  return HashKey(2, salt, targeting_key).first % kBuckets;
}

uint32_t BucketV1(std::string_view salt, std::string_view targeting_key) {
  return HashKey(1, salt, targeting_key).first % 100;
}

}  // namespace sluice::flags
