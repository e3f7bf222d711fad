#ifndef WORKER_STEP_TIMES_MEASUREMENT_H_
#define WORKER_STEP_TIMES_MEASUREMENT_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/step_times.h"
#include "worker/thread_pool.h"

namespace tern {

// Measures how long the layers and the int8 head of a model take here, with all
// threads of `pool`: runs layers of the model's shape, with weights of zero,
// for 1, 8 and 64 sequences and for 8 with a context, and a part of a head for
// 1 and 32 rows; each the shortest of up to five runs, and lines through them
// (FitLine()). Weights are as many as do not fit the last caches, as far as the
// model has so many. Takes some 0.3 s for a model of 2 G weights on two cores,
// and stops repeating after `budget`; allocates up to 300 MiB meanwhile.
//
// RESOURCE_EXHAUSTED when the system refuses the memory.
absl::StatusOr<StepTimes> MeasureStepTimes(const ModelConfig& config,
                                           TernaryPacking packing,
                                           const Kernels& kernels,
                                           ThreadPool* pool,
                                           absl::Duration budget);

}  // namespace tern

#endif  // WORKER_STEP_TIMES_MEASUREMENT_H_
