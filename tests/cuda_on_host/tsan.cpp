// What -fsanitize=thread calls at each access to memory, in the place of its own library.
#include <cstdint>

#include "races.h"

using cuda_on_host::Kind;
#define CODE __builtin_return_address(0)
#define READ(name, bytes) \
  void name(void* p) { cuda_on_host::access(p, bytes, Kind::kRead, CODE); }
#define WRITE(name, bytes) \
  void name(void* p) { cuda_on_host::access(p, bytes, Kind::kWrite, CODE); }
#define ACCESS(bytes)                                \
  READ(__tsan_read##bytes, bytes)                    \
  READ(__tsan_unaligned_read##bytes, bytes)          \
  READ(__tsan_volatile_read##bytes, bytes)           \
  READ(__tsan_unaligned_volatile_read##bytes, bytes) \
  WRITE(__tsan_write##bytes, bytes)                  \
  WRITE(__tsan_unaligned_write##bytes, bytes)        \
  WRITE(__tsan_volatile_write##bytes, bytes)         \
  WRITE(__tsan_unaligned_volatile_write##bytes, bytes)

extern "C" {
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16) void __tsan_read_range(void* p, size_t n) {
  cuda_on_host::access(p, n, Kind::kRead, CODE);
}
void __tsan_write_range(void* p, size_t n) { cuda_on_host::access(p, n, Kind::kWrite, CODE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// Of the host's code in the same files: reference counts and the like. No kernel has them.
#define HOST_FETCH(bits, T, what)                                     \
  T __tsan_atomic##bits##_fetch_##what(volatile T* p, T value, int) { \
    return __atomic_fetch_##what(p, value, __ATOMIC_SEQ_CST);         \
  }
#define HOST_COMPARE(bits, T, how)                                                                \
  int __tsan_atomic##bits##_compare_exchange_##how(volatile T* p, T* old, T value, int, int) {    \
    return __atomic_compare_exchange_n(p, old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }
#define HOST_ATOMICS(bits, T)                                               \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                  \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                            \
  }                                                                         \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int) {           \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                           \
  }                                                                         \
  T __tsan_atomic##bits##_exchange(volatile T* p, T value, int) {           \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                 \
  }                                                                         \
  HOST_FETCH(bits, T, add)                                                  \
  HOST_FETCH(bits, T, sub)                                                  \
  HOST_FETCH(bits, T, and) HOST_FETCH(bits, T, or) HOST_FETCH(bits, T, xor) \
      HOST_COMPARE(bits, T, strong) HOST_COMPARE(bits, T, weak)
HOST_ATOMICS(8, uint8_t)
HOST_ATOMICS(16, uint16_t) HOST_ATOMICS(32, uint32_t) HOST_ATOMICS(64, uint64_t)
}
