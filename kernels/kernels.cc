#include "kernels/kernels.h"

#include "kernels/ref.h"
#include "util/logging.h"

#if defined(__x86_64__)
#include "kernels/avx2.h"
#include "kernels/avx512.h"
#include "kernels/avx512vbmi.h"
#include "kernels/vnni256.h"
#elif defined(__aarch64__)
#include "kernels/dotprod.h"
#include "kernels/i8mm.h"
#include "kernels/neon.h"
#endif

namespace tern {
namespace {

constexpr Kernels kRefKernels = {
    Isa::kRef,
    ref::QuantizeToken,
    {ref::TernaryMatmul, ref::TernaryMatmul, ref::TernaryMatmul,
     ref::TernaryMatmul},
    ref::RmsNorm,
    ref::RopeRotate,
    ref::StoreKv,
    ref::Attend,
    ref::Relu2Gate,
    ref::SiluGate,
    ref::Add,
    ref::ExpEach,
    ref::HeadStored,
    ref::HeadInt8,
    ref::HeadInt8Bounds,
    ref::HeadInt8Groups,
    ref::WidenRow,
    ref::QuantizeHeadRow,
};

#if defined(__x86_64__)

constexpr Kernels kAvx2Kernels = {
    Isa::kAvx2,
    avx2::QuantizeToken,
    {avx2::TernaryMatmul, nullptr, avx2::TernaryMatmulTl2, nullptr},
    avx2::RmsNorm,
    avx2::RopeRotate,
    avx2::StoreKv,
    avx2::Attend,
    avx2::Relu2Gate,
    avx2::SiluGate,
    avx2::Add,
    avx2::ExpEach,
    avx2::HeadStored,
    avx2::HeadInt8,
    avx2::HeadInt8Bounds,
    avx2::HeadInt8Groups,
    avx2::WidenRow,
    avx2::QuantizeHeadRow,
};

// AVX2 but for what a dot product pays for.
constexpr Kernels Vnni256Kernels(Isa isa, TernaryMatmulFunction ternary_matmul,
                                 decltype(Kernels::head_int8) head_int8) {
  Kernels kernels = kAvx2Kernels;
  kernels.isa = isa;
  kernels.ternary_matmul_of[static_cast<int>(TernaryPacking::k2Bit)] =
      ternary_matmul;
  kernels.head_int8 = head_int8;
  return kernels;
}
constexpr Kernels kAvxVnniKernels =
    Vnni256Kernels(Isa::kAvxVnni, avxvnni::TernaryMatmul, avxvnni::HeadInt8);
constexpr Kernels kAvx512Vnni256Kernels = Vnni256Kernels(
    Isa::kAvx512Vnni256, avx512vnni256::TernaryMatmul, avx512vnni256::HeadInt8);

// The norm is a chain of additions; what else passes over a token once waits
// for the caches, and rows are widened once, at load: wider registers gain
// nothing there.
constexpr Kernels Avx512VnniKernels(TernaryMatmulFunction base3) {
  Kernels kernels = kAvx2Kernels;
  kernels.isa = Isa::kAvx512Vnni;
  kernels.quantize_token = avx512::QuantizeToken;
  kernels.ternary_matmul_of[static_cast<int>(TernaryPacking::k2Bit)] =
      avx512::TernaryMatmul;
  kernels.ternary_matmul_of[static_cast<int>(TernaryPacking::kBase3)] = base3;
  kernels.attend = avx512::Attend;
  kernels.silu_gate = avx512::SiluGate;
  kernels.exp_each = avx512::ExpEach;
  kernels.head_stored = avx512::HeadStored;
  kernels.head_int8 = avx512::HeadInt8;
  kernels.head_int8_bounds = avx512::HeadInt8Bounds;
  return kernels;
}
constexpr Kernels kAvx512VnniKernels = Avx512VnniKernels(nullptr);
constexpr Kernels kAvx512VbmiKernels =
    Avx512VnniKernels(avx512vbmi::TernaryMatmulBase3);

#elif defined(__aarch64__)

constexpr Kernels kNeonKernels = {
    Isa::kNeon,
    neon::QuantizeToken,
    {neon::TernaryMatmul, nullptr, nullptr, neon::TernaryMatmulTl1},
    neon::RmsNorm,
    neon::RopeRotate,
    neon::StoreKv,
    neon::Attend,
    neon::Relu2Gate,
    neon::SiluGate,
    neon::Add,
    neon::ExpEach,
    neon::HeadStored,
    neon::HeadInt8,
    neon::HeadInt8Bounds,
    neon::HeadInt8Groups,
    neon::WidenRow,
    neon::QuantizeHeadRow,
};

// The instructions that the others add multiply int8.
constexpr Kernels NeonDotprodKernels() {
  Kernels kernels = kNeonKernels;
  kernels.isa = Isa::kNeonDotprod;
  kernels.ternary_matmul_of[static_cast<int>(TernaryPacking::k2Bit)] =
      dotprod::TernaryMatmul;
  kernels.head_int8 = dotprod::HeadInt8;
  kernels.head_int8_bounds = dotprod::HeadInt8Bounds;
  kernels.head_int8_groups = dotprod::HeadInt8Groups;
  return kernels;
}
constexpr Kernels kNeonDotprodKernels = NeonDotprodKernels();

constexpr Kernels NeonI8mmKernels() {
  Kernels kernels = kNeonDotprodKernels;
  kernels.isa = Isa::kNeonI8mm;
  kernels.ternary_matmul_of[static_cast<int>(TernaryPacking::k2Bit)] =
      i8mm::TernaryMatmul;
  return kernels;
}
constexpr Kernels kNeonI8mmKernels = NeonI8mmKernels();

#endif

}  // namespace

const Kernels& KernelsFor(Isa isa) {
  CHECK(IsaSupported(isa)) << "instruction set " << IsaName(isa)
                           << " is not supported by this CPU";
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
      return kAvx2Kernels;
    case Isa::kAvxVnni:
      return kAvxVnniKernels;
    case Isa::kAvx512Vnni256:
      return kAvx512Vnni256Kernels;
    case Isa::kAvx512Vnni:
      return CpuHasAvx512Vbmi() ? kAvx512VbmiKernels : kAvx512VnniKernels;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return kNeonKernels;
    case Isa::kNeonDotprod:
      return kNeonDotprodKernels;
    case Isa::kNeonI8mm:
      return kNeonI8mmKernels;
#endif
    default:
      return kRefKernels;
  }
}

const Kernels& BestKernels() {
  static const Isa best = SupportedIsas().back();
  return KernelsFor(best);
}

}  // namespace tern
