// The memory that a block's threads share: poisoned when a block begins, with gaps between arrays.
#include "device.h"
#include "state.h"

#include <cstring>
#include <vector>

#if defined(CUDA_ON_HOST_SANITIZE)
#include <sanitizer/asan_interface.h>
// By name: the header's macros do nothing in a file that is not instrumented itself.
#define POISON(address, bytes) __asan_poison_memory_region(address, bytes)
#define UNPOISON(address, bytes) __asan_unpoison_memory_region(address, bytes)
#else
#define POISON(address, bytes)
#define UNPOISON(address, bytes)
#endif

namespace cuda_on_host {
namespace {

struct Array {
  const void* key;
  char* data;
  size_t bytes;
};

constexpr size_t kMostBytes = 48 * 1024;
constexpr size_t kGap = 256;
constexpr size_t kMostArrays = 32;

std::vector<Array> arrays;
size_t bytes_used, arena_used;
alignas(kGap) char arena[kMostBytes + 3 * kGap * kMostArrays];

// Very large or NaN, very large or negative: in turn, since either may be without effect.
void fill(const Array& array) {
  std::memset(array.data, next_random() % 2 ? 0x7f : 0xff, array.bytes);
}

}  // namespace

void forget_shared_arrays() {
  arrays.clear();
  bytes_used = arena_used = 0;
  POISON(arena, sizeof(arena));
}

void fill_shared_memory() {
  for (const Array& array : arrays) {
    fill(array);
  }
}

void* shared(const void* key, size_t bytes, size_t align, const char* name) {
  for (const Array& array : arrays) {
    if (array.key == key) {
      return array.data;
    }
  }
  bytes_used = (bytes_used + align - 1) / align * align + bytes;
  if (bytes_used > kMostBytes || arrays.size() == kMostArrays || align > kGap) {
    trap("more shared memory than a block has", name, 0);
  }
  // Aligned as asked for and no better.
  char* data = arena + arena_used + kGap + (align < kGap ? align : 0);
  arrays.push_back({key, data, bytes});
  arena_used = (data - arena + bytes + kGap - 1) / kGap * kGap;
  UNPOISON(data, bytes);
  fill(arrays.back());
  return data;
}

bool in_shared_memory(const void* address) {
  return address >= arena && address < arena + sizeof(arena);
}

bool in_shared_array(const void* address, size_t bytes) {
  const auto* first = static_cast<const char*>(address);
  for (const Array& array : arrays) {
    if (first >= array.data && first + bytes <= array.data + array.bytes) {
      return true;
    }
  }
  return false;
}

}  // namespace cuda_on_host
