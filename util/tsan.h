#ifndef UTIL_TSAN_H_
#define UTIL_TSAN_H_

// For the files that tell ThreadSanitizer of what it does not see: TERN_TSAN is
// defined where a file is compiled for it.

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TERN_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define TERN_TSAN 1
#endif

#ifdef TERN_TSAN

#include <dlfcn.h>

// What a thread did before it released an address has happened before what
// another does after it acquires that.
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);

namespace tern {

// The library's own function of a (mangled) name, which one in the program
// hides.
template <typename Function>
Function* HiddenFunction(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace tern

#endif  // TERN_TSAN

#endif  // UTIL_TSAN_H_
