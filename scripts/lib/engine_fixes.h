#pragma once
// Force-included into every C++ file of the engine library; for C++ only.
//
// ggml's half-precision loops take 128 elements at a time on CPUs with AVX512-FP16 and the rest one by one in scalar
// code: all of it for heads of 64 elements. Flash attention of fewer than 64 rows, decoding included, is made of them.
// Without the macro they take 64, converted to float.
#if defined(__cplusplus)
#undef __AVX512FP16__
#endif
// GCC before 13 declares that ldtilecfg reads 8 of its 64 bytes, and drops the stores to the others: SIGILL.
#if defined(__cplusplus) && defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
