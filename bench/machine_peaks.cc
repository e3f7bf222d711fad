#include "bench/machine_peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/functional/function_ref.h"
#include "kernels/isa.h"
#include "util/logging.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tern {
namespace {

// Many times the largest last cache.
constexpr size_t kBufferBytes = size_t{768} << 20;
constexpr int64_t kMultiplySteps = 4'000'000;

double SecondsOf(absl::FunctionRef<void()> work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

// Vectors of the GNU C language, compiled for what the CPU has: with short ones
// a core cannot ask for enough lines at a time.
typedef uint64_t Line __attribute__((vector_size(64)));

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
SumLines(const Line* lines, size_t n) {
  // Asked for ahead, as the kernels do: the hardware alone is slower.
  constexpr size_t kAhead = 80;
  Line sums[4] = {};
  for (size_t i = 0; i + 4 <= n; i += 4) {
    for (int j = 0; j < 4; ++j) {
      __builtin_prefetch(lines + i + j + kAhead);
      sums[j] += lines[i + j];
    }
  }
  return sums[0][0] + sums[1][0] + sums[2][0] + sums[3][0];
}

#if defined(__x86_64__)

// Twelve chains hide the latency. In assembly, else the compiler folds what
// never changes. Returns multiply-adds done.
__attribute__((target("avx512f,avx512vnni"))) double RunVpdpbusd512() {
  __m512i a = _mm512_setzero_si512();
  __m512i b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a,
          l = a;
  const __m512i x = _mm512_set1_epi8(1);
  for (int64_t n = 0; n < kMultiplySteps; ++n) {
    asm volatile(
        "vpdpbusd %12, %12, %0\n vpdpbusd %12, %12, %1\n"
        "vpdpbusd %12, %12, %2\n vpdpbusd %12, %12, %3\n"
        "vpdpbusd %12, %12, %4\n vpdpbusd %12, %12, %5\n"
        "vpdpbusd %12, %12, %6\n vpdpbusd %12, %12, %7\n"
        "vpdpbusd %12, %12, %8\n vpdpbusd %12, %12, %9\n"
        "vpdpbusd %12, %12, %10\n vpdpbusd %12, %12, %11\n"
        : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g),
          "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l)
        : "v"(x));
  }
  return 12.0 * 64 * kMultiplySteps;
}

__attribute__((target("avx2"))) double RunMaddubs256() {
  __m256i a = _mm256_setzero_si256();
  __m256i b = a, c = a, d = a, e = a, f = a;
  __m256i p, q;
  const __m256i x = _mm256_set1_epi8(1);
  for (int64_t n = 0; n < kMultiplySteps; ++n) {
    asm volatile(
        "vpmaddubsw %8, %8, %6\n vpaddw %6, %0, %0\n"
        "vpmaddubsw %8, %8, %7\n vpaddw %7, %1, %1\n"
        "vpmaddubsw %8, %8, %6\n vpaddw %6, %2, %2\n"
        "vpmaddubsw %8, %8, %7\n vpaddw %7, %3, %3\n"
        "vpmaddubsw %8, %8, %6\n vpaddw %6, %4, %4\n"
        "vpmaddubsw %8, %8, %7\n vpaddw %7, %5, %5\n"
        : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "=&x"(p),
          "=&x"(q)
        : "x"(x));
  }
  return 6.0 * 32 * kMultiplySteps;
}

double RunMultiplyAdds() {
  if (IsaSupported(Isa::kAvx512Vnni)) return RunVpdpbusd512();
  if (IsaSupported(Isa::kAvx2)) return RunMaddubs256();
  return 0;
}

#else

double RunMultiplyAdds() { return 0; }

#endif

}  // namespace

MachinePeaks::MachinePeaks() {
  auto buffer = HugeBuffer::Allocate(kBufferBytes, "the bandwidth test");
  CHECK(buffer.ok()) << buffer.status().ToString();
  buffer_ = std::move(buffer).value();
  std::memset(buffer_.data(), 1, buffer_.size());
}

double MachinePeaks::ReadBandwidth(ThreadPool* pool) const {
  const Line* const lines = reinterpret_cast<const Line*>(buffer_.data());
  const int64_t n_lines = static_cast<int64_t>(buffer_.size() / sizeof(Line));
  std::atomic<uint64_t> sum{0};
  const double seconds = SecondsOf([&] {
    pool->ParallelFor(n_lines, 64, [&](int64_t begin, int64_t end) {
      sum += SumLines(lines + begin, end - begin);
    });
  });
  CHECK(sum.load() != 0);
  return static_cast<double>(buffer_.size()) / seconds;
}

double MachinePeaks::MultiplyAdds(ThreadPool* pool) const {
  std::atomic<double> done{0};
  const double seconds = SecondsOf([&] {
    pool->ParallelFor(pool->size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) done = RunMultiplyAdds();
    });
  });
  return done * pool->size() / seconds;
}

}  // namespace tern
