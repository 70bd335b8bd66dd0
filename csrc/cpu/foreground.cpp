#include "cpu/foreground.h"

#include "cpu/vectorize.h"

namespace alwa_d2 {
namespace {

// Labels looked at together, eight registers of AVX-512: most have no foreground among them.
constexpr int64_t kStep = 64;

// Whether any of kStep anchors is foreground.
inline __attribute__((always_inline)) bool any_of(const bool* mask) {
  uint8_t any = 0;
  for (int64_t i = 0; i < kStep; ++i) {
    any |= mask[i];
  }
  return any != 0;
}

inline __attribute__((always_inline)) bool any_of(const int64_t* labels, int64_t num_classes) {
  // 0 <= label < num_classes where the label's sign bit is 0 and that of label - num_classes is 1.
  // The compiler vectorises sign bits where it does not vectorise comparisons of 64 bits.
  uint64_t any = 0;
  for (int64_t i = 0; i < kStep; ++i) {
    const auto label = static_cast<uint64_t>(labels[i]);
    any |= ~label & (label - static_cast<uint64_t>(num_classes));
  }
  return any >> 63 != 0;
}

}  // namespace

ALWA_CLONES int64_t
find_foreground(const IsForeground& is_foreground, int64_t begin, int64_t end, int32_t* indices) {
  const IsForeground is = is_foreground;
  int64_t found = 0;
  for (int64_t first = begin; first < end; first += kStep) {
    const int64_t last = std::min(end, first + kStep);
    const bool look = last - first < kStep ||
        (is.mask ? any_of(is.mask + first) : any_of(is.labels + first, is.num_classes));
    for (int64_t i = first; look && i < last; ++i) {
      indices[found] = static_cast<int32_t>(i - begin);
      found += is(i);
    }
  }
  return found;
}

}  // namespace alwa_d2
