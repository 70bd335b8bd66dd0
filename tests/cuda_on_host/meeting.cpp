// Where a block's threads meet: at barriers, votes and shuffles. Who waits goes on when all have
// come. Never instrumented.
#include "meeting.h"

#include <bit>

#include "state.h"

namespace cuda_on_host {

std::vector<std::unique_ptr<Thread>> threads;
std::vector<Warp> warps;
std::vector<int> ready;
size_t count, present, at_barrier;

namespace {

int barrier_sum;  // of what the threads have brought to the last barrier

void wait_at(const Meeting& meeting, uint64_t value) {
  Thread& thread = *threads[running.thread];
  thread.meeting = meeting;
  thread.value = value;
  thread.waits = true;
  thread.fibre.wait();
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

}  // namespace

void go_on(size_t id) {
  threads[id]->waits = false;
  ready.push_back(static_cast<int>(id));
}

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

}  // namespace cuda_on_host
