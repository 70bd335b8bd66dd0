#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// What the scheduler (device.cpp), the block's shared memory (shared.cpp) and the detector of races
// (races.cpp) tell each other.

namespace cuda_on_host {

struct Running {
  bool kernel = false;  // else the host runs
  int64_t block;        // its number in the grid
  int thread;           // its number in the block
  int epoch;            // barriers that the block has passed
  int warp_epoch;       // __syncwarp of all its lanes that the warp has passed
  const char* stack;    // the thread's
  const char* host_stack;  // the part in use begins here
};
extern Running running;

uint64_t next_random();

// The launch ends with this error as soon as the thread that runs waits or ends.
void fail(const std::string& what);
// Ends it at once, of the thread that runs; `code` is where in the library.
[[noreturn]] void trap_at(const char* what, const void* code);

// The arrays of a kernel are those that its threads have asked for.
void forget_shared_arrays();
// With numbers that no kernel may use.
void fill_shared_memory();
bool in_shared_memory(const void* address);
bool in_shared_array(const void* address, size_t bytes);

// Of the detector of races; in other builds they do nothing.
void block_ended();
void launch_ended();

}  // namespace cuda_on_host
