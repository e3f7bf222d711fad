// Jumps between stacks are what the checked longjmp() takes for a mistake.
#undef _FORTIFY_SOURCE

#include "kernels/cuda/fiber.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "util/logging.h"

#if defined(__SANITIZE_ADDRESS__)
#define TERN_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TERN_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef TERN_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace tern::simt {
namespace {

// The two ends of a switch: makecontext() passes no pointers.
thread_local Fiber* switched_from = nullptr;
thread_local Fiber* switched_to = nullptr;

}  // namespace

Fiber::Fiber(size_t stack_bytes) : stack_bytes_(stack_bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapping_bytes_ = page + (stack_bytes + page - 1) / page * page;
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapping_ != MAP_FAILED) << "no memory for the stack of a fiber";
  CHECK(mprotect(mapping_, page, PROT_NONE) == 0);
  stack_ = static_cast<char*>(mapping_) + page;
  stack_bytes_ = mapping_bytes_ - page;
}

Fiber::~Fiber() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void Fiber::Start(void (*entry)(void*), void* arg) {
  CHECK(stack_ != nullptr);
  entry_ = entry;
  arg_ = arg;
  begun_ = false;
#ifdef TERN_ADDRESS_SANITIZER
  // What it was doing may have been left in the middle.
  __asan_unpoison_memory_region(stack_, stack_bytes_);
#endif
  sanitizer_stack_ = nullptr;
  CHECK(getcontext(&context_) == 0);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = stack_bytes_;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::Enter, 0);
}

void Fiber::Enter() {
  Fiber* self = switched_to;
#ifdef TERN_ADDRESS_SANITIZER
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (switched_from->mapping_ == nullptr) {
    switched_from->stack_ = const_cast<void*>(bottom);
    switched_from->stack_bytes_ = size;
  }
#endif
  self->entry_(self->arg_);
  CHECK(false) << "the function of a fiber returned";
}

void Fiber::Switch(Fiber* from, Fiber* to) {
  switched_from = from;
  switched_to = to;
#ifdef TERN_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(&from->sanitizer_stack_, to->stack_,
                                 to->stack_bytes_);
#endif
  // Not swapcontext(): it makes a system call each time.
  if (_setjmp(from->jump_) == 0) {
    if (to->begun_) _longjmp(to->jump_, 1);
    to->begun_ = true;
    setcontext(&to->context_);
  }
#ifdef TERN_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(from->sanitizer_stack_, nullptr, nullptr);
#endif
}

}  // namespace tern::simt
