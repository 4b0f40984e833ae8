// How far a misspelt name is from a known one, for "did you mean" in errors.
#pragma once

#include <cstddef>
#include <string_view>

namespace sluice {

// Insertions, deletions, substitutions and swaps of neighbours, each counting one (optimal string alignment; Damerau
// 1964). Thread-safe. O(a × b) time: for names, not for texts.
size_t EditDistance(std::string_view a, std::string_view b);

}  // namespace sluice
