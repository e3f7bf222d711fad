#ifndef BENCH_GPU_GRAPH_TIMER_H_
#define BENCH_GPU_GRAPH_TIMER_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"

namespace tern {

// The median time, in seconds, of what `enqueue` puts on the stream it is
// given: captured once as a graph, so that no launch of the host lies between
// kernels, then replayed twice to warm up and `replays` times.
absl::StatusOr<double> TimeGraph(
    const std::function<absl::Status(CudaStream)>& enqueue, int replays);

}  // namespace tern

#endif  // BENCH_GPU_GRAPH_TIMER_H_
