#pragma once

#include <cstddef>

namespace cuda_on_host {

enum class Kind { kRead, kWrite, kAtomic };

// Of the thread that runs, at `code` in the library. A race ends the launch.
void access(const void* address, size_t bytes, Kind kind, const void* code);

}  // namespace cuda_on_host
