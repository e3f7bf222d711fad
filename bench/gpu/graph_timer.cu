#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "bench/gpu/graph_timer.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// What a measurement owns.
struct Handles {
  ~Handles() {
    if (graph_exec != nullptr) cudaGraphExecDestroy(graph_exec);
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (begin != nullptr) cudaEventDestroy(begin);
    if (end != nullptr) cudaEventDestroy(end);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t graph_exec = nullptr;
};

}  // namespace

absl::StatusOr<double> TimeGraph(
    const std::function<absl::Status(CudaStream)>& enqueue, int replays) {
  Handles h;
  RETURN_IF_ERROR(CudaStatus(
      cudaStreamCreateWithFlags(&h.stream, cudaStreamNonBlocking), "stream"));
  RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&h.begin), "event"));
  RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&h.end), "event"));
  RETURN_IF_ERROR(CudaStatus(
      cudaStreamBeginCapture(h.stream, cudaStreamCaptureModeThreadLocal),
      "capture"));
  const absl::Status enqueued = enqueue(h.stream);
  RETURN_IF_ERROR(
      CudaStatus(cudaStreamEndCapture(h.stream, &h.graph), "end of capture"));
  RETURN_IF_ERROR(enqueued);
  RETURN_IF_ERROR(
      CudaStatus(cudaGraphInstantiate(&h.graph_exec, h.graph, 0), "graph"));
  std::vector<double> seconds;
  for (int i = -2; i < replays; ++i) {
    RETURN_IF_ERROR(CudaStatus(cudaEventRecord(h.begin, h.stream), "event"));
    RETURN_IF_ERROR(
        CudaStatus(cudaGraphLaunch(h.graph_exec, h.stream), "replay"));
    RETURN_IF_ERROR(CudaStatus(cudaEventRecord(h.end, h.stream), "event"));
    RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(h.end), "replay"));
    float ms = 0;
    RETURN_IF_ERROR(
        CudaStatus(cudaEventElapsedTime(&ms, h.begin, h.end), "event"));
    if (i >= 0) seconds.push_back(ms * 1e-3);
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2,
                   seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace tern
