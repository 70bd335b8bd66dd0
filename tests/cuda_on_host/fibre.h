#pragma once

#include <cstddef>

// Threads of a block as fibres: stacks of their own on one thread of the host.

namespace cuda_on_host {

class Fibre {
 public:
  Fibre();
  ~Fibre();
  Fibre(const Fibre&) = delete;

  // The next resume() calls body() from its beginning, also where an earlier one has not ended.
  void start(void (*body)());
  // Runs the fibre until it waits or ends.
  void resume();
  // Of the fibre that runs: back to who has resumed it.
  void wait();

  bool ended = true;
  char* stack;  // kStack bytes; the lowest page is not accessible
  static constexpr size_t kStack = 128 * 1024;

 private:
  static void enter();

  void (*body_)();
  void* top_ = nullptr;  // of the stack, where it is not running
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace cuda_on_host
