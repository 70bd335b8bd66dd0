#include "fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#if defined(CUDA_ON_HOST_SANITIZE)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "cuda_on_host: the switch of stacks is written for x86-64"
#endif

// Keeps the registers that a call preserves on the stack that is left, and takes them from the
// other one. swapcontext would call the system twice.
extern "C" void cuda_on_host_switch(void** leave, void* enter);
asm(R"(
.text
.globl cuda_on_host_switch
.type cuda_on_host_switch, @function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_host_switch, .-cuda_on_host_switch
)");

namespace cuda_on_host {
namespace {

constexpr size_t kPage = 4096;
Fibre* running = nullptr;
void* host_top = nullptr;

// AddressSanitizer wants to know on which stack it is.
#if defined(CUDA_ON_HOST_SANITIZE)
const void* host_stack;
size_t host_size;
void leaving(void** keep, const void* bottom, size_t size) {
  __sanitizer_start_switch_fiber(keep, bottom, size);
}
void arrived(void* kept, const void** from, size_t* size) {
  __sanitizer_finish_switch_fiber(kept, from, size);
}
// What an abandoned body has marked.
void forget(const char* stack, size_t size) { __asan_unpoison_memory_region(stack, size); }
#else
const void* host_stack = nullptr;
size_t host_size = 0;
void leaving(void**, const void*, size_t) {}
void arrived(void*, const void**, size_t*) {}
void forget(const char*, size_t) {}
#endif

}  // namespace

Fibre::Fibre() {
  void* memory =
      mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
    std::abort();
  }
  stack = static_cast<char*>(memory);
}

Fibre::~Fibre() { munmap(stack, kStack); }

void Fibre::start(void (*body)()) {
  forget(stack + kPage, kStack - kPage);
  body_ = body;
  ended = false;
  // As cuda_on_host_switch leaves a stack: six registers and where to go on; above them what
  // would be the return address of enter(), at a multiple of 16 less 8.
  auto* top = reinterpret_cast<void**>(stack + kStack) - 8;
  for (int i = 0; i < 8; ++i) {
    top[i] = nullptr;
  }
  top[6] = reinterpret_cast<void*>(&enter);
  top_ = top;
}

void Fibre::enter() {
  arrived(nullptr, &host_stack, &host_size);
  Fibre& self = *running;
  self.body_();
  self.ended = true;
  self.wait();
  std::abort();
}

void Fibre::resume() {
  void* fake_stack = nullptr;
  running = this;
  leaving(&fake_stack, stack, kStack);
  cuda_on_host_switch(&host_top, top_);
  arrived(fake_stack, nullptr, nullptr);
  running = nullptr;
}

void Fibre::wait() {
  leaving(ended ? nullptr : &fake_stack_, host_stack, host_size);
  cuda_on_host_switch(&top_, host_top);
  arrived(fake_stack_, &host_stack, &host_size);
}

}  // namespace cuda_on_host
