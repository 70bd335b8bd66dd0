#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_on_host {

// The threads of each block of a launch.
void make_threads(size_t number, const std::function<void()>& thread);

// Until all have ended, or the launch has failed.
void run_block(int64_t block);

// Of the thread that runs, in a launch that has failed: it does not go on.
[[noreturn]] void leave();

}  // namespace cuda_on_host
