#ifndef BENCH_GPU_LINEAR_REPORT_H_
#define BENCH_GPU_LINEAR_REPORT_H_

#include <string>
#include <vector>

#include "bench/gpu/device_peaks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ternary_plan.h"

namespace tern {

// A matrix of a model: rows that read the same tokens are one.
struct LinearShape {
  const char* name;
  int n_out;
  int n_in;
};

// The four of a layer of BitNet-b1.58-2B-4T, and how many layers it has.
inline constexpr LinearShape kShapes2B4T[] = {{"q k v", 3840, 2560},
                                              {"o", 2560, 2560},
                                              {"gate up", 13824, 2560},
                                              {"down", 2560, 6912}};
inline constexpr int kLayers2B4T = 30;

// One measurement.
struct LinearRow {
  LinearShape shape;
  int n_tokens;
  TernaryKernel kernel;  // as planned
  int column_splits;
  double seconds;
  double overlapped_seconds;  // where each kernel overlaps the one before it
  // The fastest plan that was tried; the planned one when no other was.
  TernaryKernel best_kernel;
  int best_column_splits;
  double best_seconds;
};

// What must move: packed weights, tokens and outputs once.
double LinearBytes(const LinearShape& shape, int n_tokens);
// Two for each product.
double LinearOps(const LinearShape& shape, int n_tokens);

// The time of a token through the linear layers of the whole model, for each
// number of tokens of which all four shapes were measured.
struct LinearTotal {
  int n_tokens;
  double seconds;  // of all layers, for all tokens, overlapped or not
  double tokens_per_second;
};
std::vector<LinearTotal> TotalsOf(const std::vector<LinearRow>& rows);

// The report as text and as JSON.
std::string LinearMarkdown(const DeviceInfo& device, const DevicePeaks& peaks,
                           const std::vector<LinearRow>& rows);
std::string LinearJson(const DeviceInfo& device, const DevicePeaks& peaks,
                       const std::vector<LinearRow>& rows);

}  // namespace tern

#endif  // BENCH_GPU_LINEAR_REPORT_H_
