// What ThreadSanitizer must be told of gRPC, which is compiled without it:
// what a thread did before it started an operation has happened before the
// operation's callback, and the end of a call follows all its callbacks. See
// sanitizers.cc. Compiled to nothing otherwise.

#include "util/tsan.h"

#ifdef TERN_TSAN

#include <grpc/grpc.h>
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <thread>

#include "grpcpp/support/server_callback.h"

namespace {

// Stands for all callbacks that have returned: they count the call's
// references down inside the library, where it is not seen, so the end of any
// call is made to follow all of them.
char finished_callbacks;

// Stands in for the functor of an operation.
struct AnnotatedFunctor {
  grpc_completion_queue_functor functor;
  grpc_completion_queue_functor* original;

  static void Run(grpc_completion_queue_functor* self, int ok) {
    __tsan_acquire(self);
    auto* const annotated = reinterpret_cast<AnnotatedFunctor*>(self);
    grpc_completion_queue_functor* const original = annotated->original;
    delete annotated;
    original->functor_run(original, ok);
    __tsan_release(&finished_callbacks);
  }
};

// Stands in for a reactor whose call was cancelled, for that one callback.
class AnnotatedCancel : public grpc::internal::ServerReactor {
 public:
  explicit AnnotatedCancel(grpc::internal::ServerReactor* original)
      : original_(original) {}

  void OnCancel() override {
    __tsan_acquire(original_);
    original_->OnCancel();
    __tsan_release(&finished_callbacks);
    delete this;
  }
  void OnDone() override {}  // asked of the call's own reactor

 private:
  grpc::internal::ServerReactor* const original_;
};

int FindCode(dl_phdr_info* info, size_t size, void* address) {
  const auto at = *static_cast<uintptr_t*>(address);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && (header.p_flags & PF_X) != 0 &&
        at >= begin && at < begin + header.p_memsz) {
      return 1;
    }
  }
  return 0;
}

// An operation's tag is a functor or an object with virtual functions: the
// first word of one points to code, that of the other to a table.
bool IsFunctor(void* tag) {
  auto first = *static_cast<uintptr_t*>(tag);
  return dl_iterate_phdr(FindCode, &first) == 1;
}

}  // namespace

extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call,
                                                 const grpc_op* ops,
                                                 size_t n_ops, void* tag,
                                                 void* reserved) {
  static auto* const real =
      tern::HiddenFunction<decltype(grpc_call_start_batch)>(
          "grpc_call_start_batch");
  if (tag == nullptr || !IsFunctor(tag)) {
    return real(call, ops, n_ops, tag, reserved);
  }
  auto* const original = static_cast<grpc_completion_queue_functor*>(tag);
  auto* const annotated = new AnnotatedFunctor{
      {AnnotatedFunctor::Run, original->inlineable, 0, nullptr}, original};
  __tsan_release(annotated);
  const grpc_call_error error = real(call, ops, n_ops, annotated, reserved);
  if (error != GRPC_CALL_OK) delete annotated;
  return error;
}

namespace grpc {
namespace internal {

// The last reference to a server's call is gone. The library would hand the
// rest to a thread of its own; a new one is ordered after this one.
void ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  static auto* const real =
      tern::HiddenFunction<void(ServerCallbackCall*, bool)>(
          "_ZN4grpc8internal18ServerCallbackCall14ScheduleOnDoneEb");
  __tsan_acquire(&finished_callbacks);
  if (inline_ondone) {
    real(this, true);
  } else {
    std::thread([this] { real(this, true); }).detach();
  }
}

void ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  static auto* const real =
      tern::HiddenFunction<void(ServerCallbackCall*, ServerReactor*)>(
          "_ZN4grpc8internal18ServerCallbackCall12CallOnCancelEPNS0_"
          "13ServerReactorE");
  if (reactor->InternalInlineable()) {
    real(this, reactor);  // its own, at once and in this thread
    return;
  }
  __tsan_release(reactor);
  real(this, new AnnotatedCancel(reactor));
}

}  // namespace internal
}  // namespace grpc

#endif  // TERN_TSAN
