#include "flags/flagd/murmur3.h"

#include <bit>

namespace sluice::flags::flagd {
namespace {

uint32_t Scramble(uint32_t k) { return std::rotl(k * 0xcc9e2d51u, 15) * 0x1b873593u; }

uint32_t LittleEndian(std::string_view bytes) {
  uint32_t word = 0;
  for (size_t i = 0; i < bytes.size(); ++i) word |= uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return word;
}

}  // namespace

uint32_t Murmur3X86_32(std::string_view bytes, uint32_t seed) {
  const auto length = static_cast<uint32_t>(bytes.size());
  uint32_t h = seed;
  while (bytes.size() >= 4) {
    h ^= Scramble(LittleEndian(bytes.substr(0, 4)));
    h = std::rotl(h, 13) * 5 + 0xe6546b64u;
    bytes.remove_prefix(4);
  }
  h ^= Scramble(LittleEndian(bytes)) ^ length;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

}  // namespace sluice::flags::flagd
