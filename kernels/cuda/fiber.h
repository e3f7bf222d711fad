#ifndef KERNELS_CUDA_FIBER_H_
#define KERNELS_CUDA_FIBER_H_

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

namespace tern::simt {

// A function on a stack of its own, which others switch to and from. Not
// thread-safe: all fibers that switch to each other belong to one thread.
class Fiber {
 public:
  // Stands for the caller's own stack.
  Fiber() = default;
  // With a stack of `stack_bytes`, below which an access ends the process.
  explicit Fiber(size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next switch to this fiber begin `entry(arg)`, whatever it was
  // doing. `entry` must not return: it switches away for good.
  void Start(void (*entry)(void*), void* arg);

  // Leaves the running fiber `from` and goes on with `to`; returns when
  // somebody switches to `from`.
  static void Switch(Fiber* from, Fiber* to);

 private:
  static void Enter();

  ucontext_t context_ = {};  // where it begins
  jmp_buf jump_;             // where it goes on
  bool begun_ = true;
  void* mapping_ = nullptr;  // guard page, then the stack
  size_t mapping_bytes_ = 0;
  void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void (*entry_)(void*) = nullptr;
  void* arg_ = nullptr;
  void* sanitizer_stack_ = nullptr;  // what the address sanitizer keeps
};

}  // namespace tern::simt

#endif  // KERNELS_CUDA_FIBER_H_
