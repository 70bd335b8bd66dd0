// What the device has done: kernels, memory set, and PyTorch's operators, also those that the ops
// call inside. Python asks by ctypes (device.py).
#include "log.h"

#include <ATen/record_function.h>

#include <cstdint>
#include <string>

#include "state.h"

namespace cuda_on_host {
namespace {

bool recording = false;
at::CallbackHandle operators;
std::string lines;
uint64_t random_state = 1;

std::unique_ptr<at::ObserverContext> operator_begins(const at::RecordFunction& function) {
  log_line("operator", function.name());
  return nullptr;
}

}  // namespace

void log_line(const char* kind, const char* name) {
  if (recording) {
    lines += std::string(kind) + " " + name + "\n";
  }
}

uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

}  // namespace cuda_on_host

// The order of blocks and threads from here on. Not 0.
extern "C" void cuda_on_host_seed(uint64_t seed) { cuda_on_host::random_state = seed; }

extern "C" void cuda_on_host_record(int on) {
  using namespace cuda_on_host;
  if (on && !recording) {
    operators = at::addGlobalCallback(
        at::RecordFunctionCallback(operator_begins).scopes({at::RecordScope::FUNCTION}));
    lines.clear();
  } else if (!on && recording) {
    at::removeCallback(operators);
  }
  recording = on;
}

// "kernel NAME", "memset" or "operator NAME" a line, in their order.
extern "C" const char* cuda_on_host_recorded() { return cuda_on_host::lines.c_str(); }
