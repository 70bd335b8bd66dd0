#pragma once

// Marks a free function (a lambda or template can't be) whose loops gain from wide vectors: GCC
// compiles it for each of these targets, and the loader takes the best one that the machine has.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define ALWA_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ALWA_CLONES
#endif
