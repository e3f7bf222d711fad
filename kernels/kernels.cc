#include "kernels/kernels.h"

#include "kernels/ref.h"
#include "util/logging.h"

namespace tern {
namespace {

constexpr Kernels kRefKernels = {
    Isa::kRef,       ref::QuantizeToken, ref::TernaryMatmul, ref::RmsNorm,
    ref::RopeRotate, ref::StoreKv,       ref::Attend,        ref::Relu2Gate,
    ref::SiluGate,   ref::Add,           ref::ExpEach,       ref::HeadStored,
    ref::HeadInt8,
};

}  // namespace

const Kernels& KernelsFor(Isa isa) {
  CHECK(IsaSupported(isa)) << "instruction set " << IsaName(isa)
                           << " is not supported by this CPU";
  return kRefKernels;
}

const Kernels& BestKernels() {
  static const Isa best = SupportedIsas().back();
  return KernelsFor(best);
}

}  // namespace tern
