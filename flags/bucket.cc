#include "flags/bucket.h"

#include "flags/md5.h"
#include "fmt/format.h"

namespace sluice::flags {
namespace {

uint32_t BigEndian(const uint8_t* d) {
  return uint32_t{d[0]} << 24 | uint32_t{d[1]} << 16 | uint32_t{d[2]} << 8 | uint32_t{d[3]};
}

KeyHash Words(const Md5Digest& digest) { return {BigEndian(digest.data()), BigEndian(digest.data() + 4)}; }

Md5Parts Message(int hash_version, std::string_view salt, std::string_view targeting_key) {
  return hash_version == 1 ? Md5Parts{targeting_key, salt} : Md5Parts{salt, "-", targeting_key};
}

}  // namespace

std::string PercentText(RolloutBps bps) { return fmt::format("{:.6g} %", bps / 100.0); }

KeyHash HashKey(int hash_version, std::string_view salt, std::string_view targeting_key) {
  const auto [a, b, c] = Message(hash_version, salt, targeting_key);
  return Words(Md5(a, b, c));
}

std::array<KeyHash, 2> HashKeyTwice(int hash_version, std::string_view salt, std::string_view variant_salt,
                                    std::string_view targeting_key) {
  const auto [one, two] = Md5Pair(Message(hash_version, salt, targeting_key), Message(2, variant_salt, targeting_key));
  return {Words(one), Words(two)};
}

uint32_t BucketV2(std::string_view salt, std::string_view targeting_key) {
  return HashKey(2, salt, targeting_key).first % kBuckets;
}

uint32_t BucketV1(std::string_view salt, std::string_view targeting_key) {
  return HashKey(1, salt, targeting_key).first % 100;
}

}  // namespace sluice::flags
