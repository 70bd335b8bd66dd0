// A block: its threads are fibres, of which a random one goes on at every barrier, vote and
// shuffle (meeting.cpp). Never instrumented.
#include "block.h"

#include "meeting.h"
#include "state.h"

namespace cuda_on_host {
namespace {

const std::function<void()>* body;  // of each thread

void begin_block() {
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

}  // namespace

void make_threads(size_t number, const std::function<void()>& thread) {
  count = number;
  body = &thread;
  while (threads.size() < count) {
    threads.push_back(std::make_unique<Thread>());
  }
  warps.resize((count + 31) / 32);
}

void run_block(int64_t block) {
  const dim3 grid = registers.grid_size, size = registers.block_size;
  running.block = block;
  registers.block = dim3(block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
  begin_block();
  while (present > 0 && !failed()) {
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
    if (!failed()) {
      release();
    }
  }
  block_ended();
}

void leave() {
  threads[running.thread]->fibre.wait();
  std::abort();
}

}  // namespace cuda_on_host
