// The detector of races. Two accesses of the same bytes by different threads, one of them a write
// and not both atomic, are an error unless a barrier lies between; between threads of different
// blocks nothing ever does. Never instrumented itself.
#include "races.h"

#include "device.h"
#include "fibre.h"
#include "state.h"

#include <memory>
#include <unordered_map>

namespace cuda_on_host {
namespace {

// Who has made accesses of one kind, as far as a later one may be in conflict with them: of a
// warp, since its last barrier, one thread or several.
struct Access {
  int64_t warp = -1;  // counted over the blocks of a launch
  int epoch = 0, warp_epoch = 0, thread = 0;
  bool several = false;
};

constexpr int64_t kWarps = 32;  // the most of a block

bool same_block(const Access& a, const Access& b) { return a.warp / kWarps == b.warp / kWarps; }

bool behind_a_barrier(const Access& a, const Access& now) {
  return same_block(a, now) &&
      (a.epoch != now.epoch || (a.warp == now.warp && a.warp_epoch != now.warp_epoch));
}

bool conflict(const Access& a, const Access& now) {
  return a.warp >= 0 && !behind_a_barrier(a, now) &&
      (a.warp != now.warp || a.several || a.thread != now.thread);
}

// Two warps are enough to remember: a third one's access is in conflict with one of them whenever
// it is with another, and blocks run one after another.
struct Accesses {
  Access of[2];

  bool conflict_with(const Access& now) const {
    return conflict(of[0], now) || conflict(of[1], now);
  }

  void add(const Access& now) {
    for (Access& a : of) {
      if (a.warp == now.warp && !behind_a_barrier(a, now)) {
        a.several = a.several || a.thread != now.thread;
        return;
      }
    }
    for (Access& a : of) {
      if (a.warp < 0 || behind_a_barrier(a, now)) {
        a = now;
        return;
      }
    }
  }
};

struct Cell {
  Accesses reads, writes, atomics;

  // Whether it is a race.
  bool add(Kind kind, const Access& now) {
    const bool race = writes.conflict_with(now) ||
        (kind != Kind::kRead && reads.conflict_with(now)) ||
        (kind != Kind::kAtomic && atomics.conflict_with(now));
    (kind == Kind::kRead ? reads : kind == Kind::kWrite ? writes : atomics).add(now);
    return race;
  }
};

// A cell for four bytes, or for each of them once an access has begun or ended between.
struct Page {
  static constexpr uintptr_t kBytes = 1024;
  std::unique_ptr<Cell[]> cells = std::make_unique<Cell[]>(kBytes / 4);
  uintptr_t step = 4;

  void refine() {
    auto finer = std::make_unique<Cell[]>(kBytes);
    for (uintptr_t i = 0; i < kBytes; ++i) {
      finer[i] = cells[i / 4];
    }
    cells = std::move(finer);
    step = 1;
  }
};

std::unordered_map<uintptr_t, Page> global_pages, shared_pages;

bool race_in(
    std::unordered_map<uintptr_t, Page>& pages, uintptr_t from, size_t bytes, Kind kind,
    const Access& now) {
  for (uintptr_t at = from; at < from + bytes;) {
    Page& page = pages[at / Page::kBytes];
    if (page.step == 4 && (at % 4 != 0 || from + bytes - at < 4)) {
      page.refine();
    }
    if (page.cells[at % Page::kBytes / page.step].add(kind, now)) {
      return true;
    }
    at += page.step;
  }
  return false;
}

// The thread's own stack, the kernel's parameters on the host's, and what the emulation keeps.
bool is_private(const char* address) {
  constexpr ptrdiff_t kHostStack = 1 << 20;
  return (address >= running.stack && address < running.stack + Fibre::kStack) ||
      (address >= running.host_stack - 4096 && address < running.host_stack + kHostStack) ||
      (address >= reinterpret_cast<const char*>(&registers) &&
       address < reinterpret_cast<const char*>(&registers + 1));
}

}  // namespace

void access(const void* address, size_t bytes, Kind kind, const void* code) {
  const auto* data = static_cast<const char*>(address);
  if (!running.kernel || is_private(data)) {
    return;
  }
  const bool shared = in_shared_memory(address);
  Access now;
  now.warp = running.block * kWarps + running.thread / 32;
  now.epoch = running.epoch;
  now.warp_epoch = running.warp_epoch;
  now.thread = running.thread;
  const char* what = nullptr;
  if (shared && !in_shared_array(address, bytes)) {
    what = "shared memory out of bounds";
  } else if (race_in(shared ? shared_pages : global_pages, uintptr_t(address), bytes, kind, now)) {
    what = shared ? "a race in shared memory" : "a race in global memory";
  }
  if (what != nullptr) {
    trap_at(what, code);
  }
}

void touch_atomically(void* address, size_t bytes) {
  access(address, bytes, Kind::kAtomic, __builtin_return_address(0));
}

void block_ended() { shared_pages.clear(); }

void launch_ended() {
  shared_pages.clear();
  global_pages.clear();
}

}  // namespace cuda_on_host
