// The scheduler: blocks one after another in random order, a block's threads as fibres of which a
// random one goes on. Never instrumented itself.
#include "device.h"
#include "fibre.h"
#include "log.h"
#include "state.h"

#include <dlfcn.h>

#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace cuda_on_host {

Registers registers;
Running running;

namespace {

constexpr size_t kMostThreads = 1024, kMostParameterBytes = 4096;

// What a thread waits at.
struct Meeting {
  const char* name = "";
  Place place;
  unsigned mask = 0;  // of lanes; 0 for the whole block

  bool operator==(const Meeting& other) const {
    return std::strcmp(name, other.name) == 0 && mask == other.mask &&
        place.line() == other.place.line() && place.column() == other.place.column() &&
        std::strcmp(place.file_name(), other.place.file_name()) == 0;
  }
  std::string text() const { return c10::str(name, " (", place.file_name(), ":", place.line(), ")"); }
};

struct Thread {
  Fibre fibre;
  bool waits = false;
  Meeting meeting;
  uint64_t value = 0;  // what it brings there
};

struct Warp {
  unsigned present, waiting;  // lanes that have not ended, and those at a meeting of lanes
  int epoch;
  // Of the last meeting under each mask, by its lowest lane: before all have read what it gave,
  // other lanes of the warp may meet.
  unsigned lanes[32];
  uint64_t values[32][32];
};

std::mutex mutex;
std::vector<std::unique_ptr<Thread>> threads;
std::vector<Warp> warps;
std::vector<int> ready;
const std::function<void()>* body;
size_t count, present, at_barrier;  // threads of a block
int barrier_sum;
bool unchecked = false;
std::string failure;

void wait_at(const Meeting& meeting, uint64_t value) {
  Thread& thread = *threads[running.thread];
  thread.meeting = meeting;
  thread.value = value;
  thread.waits = true;
  thread.fibre.wait();
}

void go_on(size_t id) {
  threads[id]->waits = false;
  ready.push_back(static_cast<int>(id));
}

void check_same(const Meeting& a, const Meeting& b) {
  if (!(a == b)) {
    fail(c10::str("threads meet at different places: ", a.text(), " and ", b.text()));
  }
}

void release_block() {
  if (present == 0 || at_barrier < present) {
    return;
  }
  const Meeting* first = nullptr;
  at_barrier = 0;
  barrier_sum = 0;
  ++running.epoch;
  for (size_t i = 0; i < count; ++i) {
    if (threads[i]->waits) {
      first = first ? first : &threads[i]->meeting;
      check_same(*first, threads[i]->meeting);
      barrier_sum += static_cast<int>(threads[i]->value);
      go_on(i);
    }
  }
  if (present < count) {
    fail("threads have ended before a barrier that others reach: " + first->text());
  }
}

void release_lanes(size_t w, unsigned mask) {
  Warp& warp = warps[w];
  const unsigned lanes = mask & warp.present;
  if (lanes == 0 || (lanes & ~warp.waiting) != 0) {
    return;
  }
  const int group = std::countr_zero(mask);
  const Meeting& first = threads[32 * w + std::countr_zero(lanes)]->meeting;
  warp.waiting &= ~lanes;
  warp.lanes[group] = lanes;
  // A shuffle or a vote says nothing about memory.
  warp.epoch += lanes == warp.present && std::strcmp(first.name, "__syncwarp") == 0;
  for (size_t lane = 0; lane < 32; ++lane) {
    if (lanes >> lane & 1) {
      const Thread& thread = *threads[32 * w + lane];
      check_same(first, thread.meeting);
      warp.values[group][lane] = thread.value;
      go_on(32 * w + lane);
    }
  }
}

// After the thread that has run waits or has ended.
void release() {
  const size_t w = running.thread / 32, lane = running.thread % 32;
  const Thread& thread = *threads[running.thread];
  if (thread.fibre.ended) {
    --present;
    warps[w].present &= ~(1u << lane);
    release_block();
    for (size_t i = 0; i < 32; ++i) {
      if (warps[w].waiting >> i & 1) {
        release_lanes(w, threads[32 * w + i]->meeting.mask);
      }
    }
  } else if (thread.meeting.mask == 0) {
    ++at_barrier;
    release_block();
  } else {
    warps[w].waiting |= 1u << lane;
    release_lanes(w, thread.meeting.mask);
  }
}

void fail_of_waiting() {
  std::string text = "a deadlock:";
  for (size_t i = 0; i < count; ++i) {
    if (threads[i]->waits && text.find(threads[i]->meeting.text()) == std::string::npos) {
      text += c10::str(" thread ", i, " waits at ", threads[i]->meeting.text(), ";");
    }
  }
  fail(text);
}

void begin_block() {
  const dim3 size = registers.block_size;
  present = count;
  at_barrier = 0;
  running.epoch = 0;
  ready.clear();
  for (size_t w = 0; w < warps.size(); ++w) {
    const size_t lanes = std::min<size_t>(count - 32 * w, 32);
    warps[w].present = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warps[w].waiting = 0;
    warps[w].epoch = 0;
  }
  for (size_t i = 0; i < count; ++i) {
    threads[i]->fibre.start([] { (*body)(); });
    go_on(i);
  }
  fill_shared_memory();
}

void run_block(int64_t block) {
  const dim3 grid = registers.grid_size, size = registers.block_size;
  running.block = block;
  registers.block = dim3(block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
  begin_block();
  while (present > 0 && failure.empty()) {
    if (ready.empty()) {
      fail_of_waiting();
      return;
    }
    std::swap(ready[next_random() % ready.size()], ready.back());
    const unsigned id = ready.back();
    ready.pop_back();
    Fibre& fibre = threads[id]->fibre;
    registers.thread = dim3(id % size.x, id / size.x % size.y, id / size.x / size.y);
    running.thread = static_cast<int>(id);
    running.warp_epoch = warps[id / 32].epoch;
    running.stack = fibre.stack;
    running.kernel = true;
    fibre.resume();
    running.kernel = false;
    release();
  }
  block_ended();
}

void check_launch(const char* name, dim3 grid, dim3 block, size_t parameter_bytes) {
  TORCH_CHECK(!unchecked, "cuda_on_host: C10_CUDA_KERNEL_LAUNCH_CHECK is missing before ", name);
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

void trap(const char* what, const char* file, int line) {
  if (!running.kernel) {
    std::fprintf(stderr, "cuda_on_host: %s (%s:%d), on the host\n", what, file, line);
    std::abort();
  }
  fail(c10::str(what, " (", file, ":", line, ")"));
  threads[running.thread]->fibre.wait();
  std::abort();
}

// The place in the library, for addr2line.
void trap_at(const char* what, const void* code) {
  Dl_info library{};
  dladdr(code, &library);
  const auto offset = static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase);
  const std::string text = c10::str(what, ", addr2line -ipe ", library.dli_fname, " 0x", std::hex, offset - 1);
  trap(text.c_str(), library.dli_fname, 0);
}

int barrier(const char* name, int value, Place at) {
  wait_at({name, at, 0}, value);
  return barrier_sum;
}

Lanes exchange(const char* name, unsigned mask, uint64_t value, Place at) {
  const unsigned lane = running.thread % 32;
  if (!(mask >> lane & 1)) {
    trap("a mask without the lane itself", at.file_name(), at.line());
  }
  wait_at({name, at, mask}, value);
  const Warp& warp = warps[running.thread / 32];
  const int group = std::countr_zero(mask);
  return {warp.values[group], warp.lanes[group], lane};
}

void launch(
    const char* name, dim3 grid, dim3 block, size_t parameter_bytes,
    const std::function<void()>& thread) {
  const std::lock_guard lock(mutex);
  count = size_t(block.x) * block.y * block.z;
  check_launch(name, grid, block, parameter_bytes);
  log_line("kernel", name);
  while (threads.size() < count) {
    threads.push_back(std::make_unique<Thread>());
  }
  warps.resize((count + 31) / 32);
  body = &thread;
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
  for (size_t i = 0; i < order.size() && failure.empty(); ++i) {
    run_block(order[i]);
  }
  launch_ended();
  TORCH_CHECK(
      failure.empty(), "cuda_on_host: ", name, ": ", failure, ", block ", running.block, " thread ",
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
