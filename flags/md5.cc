#include "flags/md5.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice::flags {
namespace {

// floor(2^32 * |sin(i + 1)|), RFC 1321 §3.4.
constexpr std::array<uint32_t, 64> kSine = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

// Left rotations of the four steps of each round.
constexpr int kRotations[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

constexpr size_t kBlockBytes = 64;
constexpr size_t kLengthOffset = 56;  // the last 8 bytes of the last block hold the length in bits

// Explicit bytes: right on any endianness; compilers turn them into one load or store.
uint32_t LoadLittle(const uint8_t* p) {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

void StoreLittle(uint32_t v, uint8_t* p) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(v >> (8 * i));
}

class Hasher {
 public:
  void Append(std::string_view part) {
    total_bytes_ += part.size();
    while (!part.empty()) {
      const size_t n = std::min(part.size(), kBlockBytes - used_);
      std::memcpy(block_ + used_, part.data(), n);
      used_ += n;
      part.remove_prefix(n);
      if (used_ == kBlockBytes) Compress();
    }
  }

  Md5Digest Finish() {
    block_[used_++] = 0x80;
    if (used_ > kLengthOffset) {
      std::memset(block_ + used_, 0, kBlockBytes - used_);
      Compress();
    }
    std::memset(block_ + used_, 0, kLengthOffset - used_);
    const uint64_t bits = total_bytes_ * 8;
    StoreLittle(static_cast<uint32_t>(bits), block_ + kLengthOffset);
    StoreLittle(static_cast<uint32_t>(bits >> 32), block_ + kLengthOffset + 4);
    Compress();
    Md5Digest digest;
    for (size_t i = 0; i < 4; ++i) StoreLittle(state_[i], digest.data() + 4 * i);
    return digest;
  }

 private:
  // One round of 16 steps. Templates keep `Round` a constant, so that the loop unrolls into straight code.
  template <int Round>
  static void Mix(const uint32_t (&words)[16], uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
    constexpr uint32_t kFactor[4] = {1, 5, 3, 7}, kShift[4] = {0, 1, 5, 0};
#pragma GCC unroll 16
    for (uint32_t i = 0; i < 16; ++i) {
      uint32_t f = 0;
      if constexpr (Round == 0) f = d ^ (b & (c ^ d));
      if constexpr (Round == 1) f = (c & ~d) + (b & d);  // disjoint bits: the part without b need not wait for b
      if constexpr (Round == 2) f = b ^ c ^ d;
      if constexpr (Round == 3) f = c ^ (b | ~d);
      const uint32_t word = words[(kFactor[Round] * i + kShift[Round]) % 16];
      const uint32_t rotated = std::rotl(a + f + word + kSine[Round * 16 + i], kRotations[Round][i % 4]);
      a = d;
      d = c;
      c = b;
      b += rotated;
    }
  }

  void Compress() {
    uint32_t words[16];
    for (size_t i = 0; i < 16; ++i) words[i] = LoadLittle(block_ + 4 * i);
    auto [a, b, c, d] = state_;
    Mix<0>(words, a, b, c, d);
    Mix<1>(words, a, b, c, d);
    Mix<2>(words, a, b, c, d);
    Mix<3>(words, a, b, c, d);
    state_[0] += a;
    state_[1] += b;
    state_[2] += c;
    state_[3] += d;
    used_ = 0;
  }

  std::array<uint32_t, 4> state_ = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  uint8_t block_[kBlockBytes];
  size_t used_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace

Md5Digest Md5(std::string_view a, std::string_view b, std::string_view c) {
  Hasher hasher;
  hasher.Append(a);
  hasher.Append(b);
  hasher.Append(c);
  return hasher.Finish();
}

}  // namespace sluice::flags
