#include "kernels/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace tern {
namespace {

// Those of one machine slowest first.
constexpr Isa kAllIsas[] = {
    Isa::kRef,        Isa::kAvx2, Isa::kAvxVnni,     Isa::kAvx512Vnni256,
    Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDotprod, Isa::kNeonI8mm};

#if defined(__x86_64__)

// Compilers disagree on whether __builtin_cpu_supports knows this one. The
// register state it needs is that of AVX2, which is asked for beside it.
bool CpuHasF16c() {
  unsigned int eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

// __builtin_cpu_supports also asks whether the operating system saves the
// registers.
bool CpuHasAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         CpuHasF16c();
}

// Neither do all compilers know this one: leaf 7, subleaf 1.
bool CpuHasAvxVnni() {
  constexpr unsigned int kAvxVnniBit = 1 << 4;
  unsigned int eax, ebx, ecx, edx;
  return CpuHasAvx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax & kAvxVnniBit) != 0;
}

bool CpuHasAvx512Vnni() {
  return CpuHasAvx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

#else

bool CpuHasAvx2() { return false; }
bool CpuHasAvxVnni() { return false; }
bool CpuHasAvx512Vnni() { return false; }

#endif

// Part of all that 64-bit ARM compilers and systems require.
#if defined(__aarch64__)
bool CpuHasNeon() { return true; }
#else
bool CpuHasNeon() { return false; }
#endif

#if defined(__aarch64__) && defined(__linux__)

bool CpuHasDotprod() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool CpuHasI8mm() {
  return CpuHasDotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
}

#else

bool CpuHasDotprod() { return false; }
bool CpuHasI8mm() { return false; }

#endif

}  // namespace

absl::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kRef:
      return "ref";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512Vnni256:
      return "avx512vnni256";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDotprod:
      return "neon_dotprod";
    case Isa::kNeonI8mm:
      return "neon_i8mm";
  }
  return "unknown";
}

bool ParseIsa(absl::string_view name, Isa* isa) {
  for (Isa candidate : kAllIsas) {
    if (IsaName(candidate) == name) {
      *isa = candidate;
      return true;
    }
  }
  return false;
}

bool IsaSupported(Isa isa) {
  switch (isa) {
    case Isa::kRef:
      return true;
    case Isa::kAvx2:
      return CpuHasAvx2();
    case Isa::kAvxVnni:
      return CpuHasAvxVnni();
    case Isa::kAvx512Vnni256:
    case Isa::kAvx512Vnni:
      return CpuHasAvx512Vnni();
    case Isa::kNeon:
      return CpuHasNeon();
    case Isa::kNeonDotprod:
      return CpuHasDotprod();
    case Isa::kNeonI8mm:
      return CpuHasI8mm();
  }
  return false;
}

bool CpuHasAvx512Vbmi() {
#if defined(__x86_64__)
  return CpuHasAvx512Vnni() && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2");
#else
  return false;
#endif
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : kAllIsas) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

}  // namespace tern
