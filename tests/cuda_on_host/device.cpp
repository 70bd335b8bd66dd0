// Launches, and how they fail. Never instrumented.
#include "device.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "block.h"
#include "log.h"
#include "state.h"

namespace cuda_on_host {

Registers registers;
Running running;

namespace {

constexpr size_t kMostThreads = 1024, kMostParameterBytes = 4096;

std::mutex mutex;
bool unchecked = false;
std::string failure;

void check_launch(const char* name, dim3 grid, dim3 block, size_t parameter_bytes) {
  const size_t count = size_t(block.x) * block.y * block.z;
  const bool was_unchecked = std::exchange(unchecked, false);
  TORCH_CHECK(
      !was_unchecked, "cuda_on_host: C10_CUDA_KERNEL_LAUNCH_CHECK is missing before ", name);
  TORCH_CHECK(
      grid.x >= 1 && grid.x <= 0x7fffffff && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
          grid.z <= 65535 && count >= 1 && count <= kMostThreads && block.z <= 64,
      "cuda_on_host: no such launch: ", name, ", grid ", grid.x, " x ", grid.y, " x ", grid.z,
      ", block ", block.x, " x ", block.y, " x ", block.z);
  TORCH_CHECK(
      parameter_bytes <= kMostParameterBytes, "cuda_on_host: ", parameter_bytes,
      " bytes of parameters: ", name);
}

}  // namespace

void fail(const std::string& what) {
  if (failure.empty()) {
    failure = what;
  }
}

bool failed() { return !failure.empty(); }

void trap(const char* what, const char* file, int line) {
  if (!running.kernel) {
    std::fprintf(stderr, "cuda_on_host: %s (%s:%d), on the host\n", what, file, line);
    std::abort();
  }
  fail(c10::str(what, " (", file, ":", line, ")"));
  leave();
}

// The place in the library, for addr2line.
void trap_at(const char* what, const void* code) {
  Dl_info library{};
  dladdr(code, &library);
  const auto offset = static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase);
  fail(c10::str(what, " (addr2line -ipe ", library.dli_fname, " 0x", std::hex, offset - 1, ")"));
  leave();
}

void launch(
    const char* name, dim3 grid, dim3 block, size_t parameter_bytes,
    const std::function<void()>& thread) {
  const std::lock_guard lock(mutex);
  check_launch(name, grid, block, parameter_bytes);
  log_line("kernel", name);
  make_threads(size_t(block.x) * block.y * block.z, thread);
  registers.grid_size = grid;
  registers.block_size = block;
  failure.clear();
  forget_shared_arrays();
  running.host_stack = static_cast<const char*>(__builtin_frame_address(0));

  std::vector<int64_t> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[next_random() % i]);
  }
  for (size_t i = 0; i < order.size() && !failed(); ++i) {
    run_block(order[i]);
  }
  launch_ended();
  TORCH_CHECK(
      !failed(), "cuda_on_host: ", name, ": ", failure, ", block ", running.block, " thread ",
      running.thread);
  unchecked = true;
}

void launch_checked() { unchecked = false; }

void set_memory(void* to, int value, size_t bytes) {
  log_line("memset", "");
  std::memset(to, value, bytes);
}

float product(float a, float b) { return a * b; }
double product(double a, double b) { return a * b; }

// The detector's own are in races.cpp.
__attribute__((weak)) void touch_atomically(void*, size_t) {}
__attribute__((weak)) void block_ended() {}
__attribute__((weak)) void launch_ended() {}

}  // namespace cuda_on_host

// What the library refers to, but only the CPU's kernels define.
extern "C" void cuda_on_host_never() {
  cuda_on_host::trap("a function of the CPU's kernels is called", __FILE__, __LINE__);
}

#if !defined(CUDA_ON_HOST_SANITIZE)
// Of -fsanitize=alignment, whose own library is not linked.
struct TypeMismatch {
  const char* file;
  uint32_t line, column;
};
extern "C" void __ubsan_handle_type_mismatch_v1(TypeMismatch* at, uintptr_t) {
  cuda_on_host::trap("a misaligned address", at->file, static_cast<int>(at->line));
}
#endif
