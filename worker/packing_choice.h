#ifndef WORKER_PACKING_CHOICE_H_
#define WORKER_PACKING_CHOICE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "worker/thread_pool.h"

namespace tern {

// How fast a packing is read for one token.
struct PackingSpeed {
  TernaryPacking packing;
  double weights_per_second;
};

// Times each packing that `kernels` has, for one token with all threads of
// `pool`, on weights twice the size of the last cache, from 64 to 512 MiB,
// which are allocated meanwhile. Takes some 0.1 s.
//
// RESOURCE_EXHAUSTED when the system refuses the memory.
absl::StatusOr<std::vector<PackingSpeed>> MeasurePackings(
    const Kernels& kernels, ThreadPool* pool);

// The fastest; k2Bit unless another is faster by more than measuring may err,
// since k2Bit is the fastest for prompts.
TernaryPacking FastestPacking(absl::Span<const PackingSpeed> speeds);

// The packing of that name; for "auto" the fastest, measured on `pool` and
// logged (k2Bit for the oracle's kernels).
//
// INVALID_ARGUMENT for a name there is not, or a packing that `kernels` lack;
// names what there is.
absl::StatusOr<TernaryPacking> ChoosePacking(absl::string_view name,
                                             const Kernels& kernels,
                                             ThreadPool* pool);

}  // namespace tern

#endif  // WORKER_PACKING_CHOICE_H_
