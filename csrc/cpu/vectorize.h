#pragma once

// Marks a function that the compiler builds once for every instruction set named here; the loader
// picks the best one that the processor has. Only the function's own loops, and what is inlined
// into them, are built so: a lambda or another function that it calls is not cloned with it.
// Compilers other than GCC build for the baseline alone.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define ALWA_CLONES __attribute__((target_clones("avx512f", "arch=x86-64-v3", "default"), noinline))
#else
#define ALWA_CLONES __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#endif
#else
#define ALWA_CLONES
#endif

namespace alwa_d2 {

constexpr int kLanes = 16;  // float32 numbers in the widest register; loops take so many at a time

}  // namespace alwa_d2
