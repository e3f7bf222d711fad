// What the sanitizers must be told of the system's libraries, which are
// compiled without them. Compiled to nothing otherwise.
//
// ThreadSanitizer: a lock taken inside Abseil orders nothing in its eyes, and
// every use of absl::Mutex would be reported as a race. This file stands
// between the program and the functions that take and give locks, calls the
// real ones, and tells the sanitizer. A status's reference count, whose last
// holder frees it, is counted down here altogether. grpc_sanitizers.cc does the
// like for gRPC.
//
// LeakSanitizer: OpenSSL frees a thread's random generators when the thread
// ends, and gRPC's threads may end just after the check for leaks.

#include "util/tsan.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libcrypto.so\n";
}
#endif

#ifdef TERN_TSAN

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);

// What the libraries do among themselves, with atomics that are not seen: a
// line must match one library, or a function that reads what another thread of
// the library wrote, or threads that it ends when the process does. The fault
// proxy of the tests is on gRPC's generic interface, whose handlers are inside
// the library, where grpc_sanitizers.cc cannot stand between; what it shares is
// under one lock, which clang checks.
const char* __tsan_default_suppressions() {
  return "race:grpc::internal::CallOpClientRecvStatus::FinishOp\n"
         "race:grpc::ByteBuffer\n"
         "race:tests/testing/fault_proxy\n"
         "thread:grpc_core::Thread::Thread\n"
         "called_from_lib:libabsl_cord.so\n"
         "called_from_lib:libabsl_cord_internal.so\n"
         "called_from_lib:libabsl_graphcycles_internal.so\n"
         "called_from_lib:libabsl_raw_hash_set.so\n"
         "called_from_lib:libabsl_status.so\n"
         "called_from_lib:libabsl_strings.so\n"
         "called_from_lib:libabsl_synchronization.so\n"
         "called_from_lib:libaddress_sorting.so\n"
         "called_from_lib:libcares.so\n"
         "called_from_lib:libcrypto.so\n"
         "called_from_lib:libgpr.so\n"
         "called_from_lib:libgrpc++.so\n"
         "called_from_lib:libgrpc.so\n"
         "called_from_lib:libprotobuf.so\n"
         "called_from_lib:libssl.so\n"
         "called_from_lib:libupb.so\n";
}
}

// Mangled names, by which hidden functions are found.
#define TERN_NAME(rest) "_ZN4absl7debian3" rest
#define TERN_CONST_NAME(rest) "_ZNK4absl7debian3" rest

#define TERN_REAL(function_type, name) \
  static auto* const real = tern::HiddenFunction<function_type>(name)

namespace absl {
ABSL_NAMESPACE_BEGIN

void Status::UnrefNonInlined(uintptr_t rep) {
  status_internal::StatusRep* const shared = RepToPointer(rep);
  if (shared->ref.fetch_sub(1, std::memory_order_acq_rel) == 1) delete shared;
}

void Mutex::Lock() {
  TERN_REAL(void(Mutex*), TERN_NAME("5Mutex4LockEv"));
  real(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  TERN_REAL(void(Mutex*), TERN_NAME("5Mutex6UnlockEv"));
  __tsan_release(this);
  real(this);
}

bool Mutex::TryLock() {
  TERN_REAL(bool(Mutex*), TERN_NAME("5Mutex7TryLockEv"));
  const bool locked = real(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::ReaderLock() {
  TERN_REAL(void(Mutex*), TERN_NAME("5Mutex10ReaderLockEv"));
  real(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  TERN_REAL(void(Mutex*), TERN_NAME("5Mutex12ReaderUnlockEv"));
  __tsan_release(this);
  real(this);
}

void Mutex::LockWhen(const Condition& condition) {
  TERN_REAL(void(Mutex*, const Condition&),
            TERN_NAME("5Mutex8LockWhenERKNS0_9ConditionE"));
  real(this, condition);
  __tsan_acquire(this);
}

void Mutex::Await(const Condition& condition) {
  TERN_REAL(void(Mutex*, const Condition&),
            TERN_NAME("5Mutex5AwaitERKNS0_9ConditionE"));
  __tsan_release(this);
  real(this, condition);
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  TERN_REAL(bool(Mutex*, const Condition&, Duration),
            TERN_NAME("5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_"
                      "8DurationE"));
  __tsan_release(this);
  const bool holds = real(this, condition, timeout);
  __tsan_acquire(this);
  return holds;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  TERN_REAL(bool(Mutex*, const Condition&, Time),
            TERN_NAME("5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE"));
  __tsan_release(this);
  const bool holds = real(this, condition, deadline);
  __tsan_acquire(this);
  return holds;
}

// A thread that unlocks evaluates the conditions of those who wait, still under
// the lock but after it has told the sanitizer that it gave the lock away.
bool Condition::Eval() const {
  TERN_REAL(bool(const Condition*), TERN_CONST_NAME("9Condition4EvalEv"));
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  const bool holds = real(this);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  return holds;
}

void CondVar::Wait(Mutex* mu) {
  TERN_REAL(void(CondVar*, Mutex*), TERN_NAME("7CondVar4WaitEPNS0_5MutexE"));
  __tsan_release(mu);
  real(this, mu);
  __tsan_acquire(mu);
}

bool CondVar::WaitWithTimeout(Mutex* mu, Duration timeout) {
  TERN_REAL(bool(CondVar*, Mutex*, Duration),
            TERN_NAME("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE"));
  __tsan_release(mu);
  const bool timed_out = real(this, mu, timeout);
  __tsan_acquire(mu);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mu, Time deadline) {
  TERN_REAL(bool(CondVar*, Mutex*, Time),
            TERN_NAME("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE"));
  __tsan_release(mu);
  const bool timed_out = real(this, mu, deadline);
  __tsan_acquire(mu);
  return timed_out;
}

void Notification::Notify() {
  TERN_REAL(void(Notification*), TERN_NAME("12Notification6NotifyEv"));
  __tsan_release(this);
  real(this);
}

void Notification::WaitForNotification() const {
  TERN_REAL(void(const Notification*),
            TERN_CONST_NAME("12Notification19WaitForNotificationEv"));
  real(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  TERN_REAL(bool(const Notification*, Duration),
            TERN_CONST_NAME("12Notification30WaitForNotificationWithTimeoutENS0"
                            "_8DurationE"));
  const bool notified = real(this, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  TERN_REAL(bool(const Notification*, Time),
            TERN_CONST_NAME(
                "12Notification31WaitForNotificationWithDeadlineENS0_4TimeE"));
  const bool notified = real(this, deadline);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl

#endif  // TERN_TSAN
