#ifndef KERNELS_ISA_H_
#define KERNELS_ISA_H_

#include <vector>

#include "absl/strings/string_view.h"

namespace tern {

// The instruction sets that kernels are written for. Every one gives the same
// bits (docs/exactness.md); they differ in speed alone.
enum class Isa {
  kRef,            // plain C++, slow and obviously right: the oracle
  kAvx2,           // AVX2 + FMA + F16C
  kAvxVnni,        // that and AVX-VNNI: dot products on 256-bit registers
  kAvx512Vnni256,  // the same by AVX-512 VNNI + VL, for CPUs that are slower at
                   // 512 bits than at 256
  kAvx512Vnni,     // AVX-512 F/BW/VL/DQ + VNNI
  kNeon,           // 64-bit ARM, any
  kNeonDotprod,    // the same with SDOT (FEAT_DotProd)
  kNeonI8mm,       // that with USDOT and USMMLA (FEAT_I8MM)
};

// "ref", "avx2", "avxvnni", "avx512vnni256", "avx512vnni", "neon",
// "neon_dotprod", "neon_i8mm".
absl::string_view IsaName(Isa isa);

// Writes the instruction set of that name to *isa; false if there is none.
bool ParseIsa(absl::string_view name, Isa* isa);

// Whether this CPU (and operating system) can run `isa`.
bool IsaSupported(Isa isa);

// Whether this CPU has, beside kAvx512Vnni, AVX-512 VBMI and VBMI2, by which
// one kernel of that set is written (base 3, kernels/ternary_layout.h).
bool CpuHasAvx512Vbmi();

// All supported instruction sets, slowest first. Never empty.
std::vector<Isa> SupportedIsas();

}  // namespace tern

#endif  // KERNELS_ISA_H_
