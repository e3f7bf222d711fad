#include "bench/gpu/linear_report.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "bench/gpu/device_peaks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ternary_plan.h"
#include "kernels/cuda/ternary_tiles.h"
#include "nlohmann/json.hpp"

namespace tern {

double LinearBytes(const LinearShape& shape, int n_tokens) {
  return static_cast<double>(TernaryTilesBytes(shape.n_out, shape.n_in)) +
         static_cast<double>(n_tokens) *
             (shape.n_in + sizeof(float) * shape.n_out);
}

double LinearOps(const LinearShape& shape, int n_tokens) {
  return 2.0 * shape.n_out * shape.n_in * n_tokens;
}

std::vector<LinearTotal> TotalsOf(const std::vector<LinearRow>& rows) {
  std::map<int, std::vector<double>> seconds;
  for (const LinearRow& row : rows) {
    seconds[row.n_tokens].push_back(
        std::min(row.seconds, row.overlapped_seconds));
  }
  std::vector<LinearTotal> totals;
  for (const auto& [n_tokens, parts] : seconds) {
    if (parts.size() != std::size(kShapes2B4T)) continue;
    double sum = 0;
    for (double part : parts) sum += part;
    sum *= kLayers2B4T;
    totals.push_back({n_tokens, sum, n_tokens / sum});
  }
  return totals;
}

std::string LinearMarkdown(const DeviceInfo& device, const DevicePeaks& peaks,
                           const std::vector<LinearRow>& rows) {
  std::string text = absl::StrFormat(
      "%s: sm_%d%d, %d multiprocessors, %.1f GiB, L2 %.0f MiB. Measured peaks: "
      "copy %.0f GB/s, read %.0f GB/s, int8 mma.sync %.0f TOPS, wgmma %.0f "
      "TOPS.\n\n",
      device.name, device.compute_major, device.compute_minor,
      device.limits.multiprocessors,
      static_cast<double>(device.memory_bytes) / (1 << 30),
      static_cast<double>(device.l2_bytes) / (1 << 20),
      peaks.copy_bytes_per_second / 1e9, peaks.read_bytes_per_second / 1e9,
      peaks.mma_ops_per_second / 1e12, peaks.wgmma_ops_per_second / 1e12);
  absl::StrAppend(&text,
                  "| matrix | tokens | kernel | splits | us | overlapped us | "
                  "GB/s | of read | TOPS | of "
                  "int8 | fastest tried | us |\n"
                  "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|---|--:|\n");
  for (const LinearRow& row : rows) {
    const double bandwidth = LinearBytes(row.shape, row.n_tokens) / row.seconds;
    const double rate = LinearOps(row.shape, row.n_tokens) / row.seconds;
    absl::StrAppendFormat(
        &text,
        "| %s | %d | %s | %d | %.2f | %.2f | %.0f | %.0f %% | %.1f | %.0f %% | "
        "%s / "
        "%d | %.2f |\n",
        row.shape.name, row.n_tokens, TernaryKernelName(row.kernel),
        row.column_splits, row.seconds * 1e6, row.overlapped_seconds * 1e6,
        bandwidth / 1e9, 100 * bandwidth / peaks.read_bytes_per_second,
        rate / 1e12, 100 * rate / peaks.ops_per_second(),
        TernaryKernelName(row.best_kernel), row.best_column_splits,
        row.best_seconds * 1e6);
  }
  absl::StrAppend(&text,
                  "\nLinear layers of the whole 2B-4T shape, nothing else:\n\n"
                  "| tokens | ms | tokens/s |\n|--:|--:|--:|\n");
  for (const LinearTotal& total : TotalsOf(rows)) {
    absl::StrAppendFormat(&text, "| %d | %.3f | %.0f |\n", total.n_tokens,
                          total.seconds * 1e3, total.tokens_per_second);
  }
  return text;
}

std::string LinearJson(const DeviceInfo& device, const DevicePeaks& peaks,
                       const std::vector<LinearRow>& rows) {
  const auto name = [](TernaryKernel kernel) {
    return std::string(TernaryKernelName(kernel));
  };
  nlohmann::json report;
  report["device"] = {{"name", device.name},
                      {"compute", absl::StrCat(device.compute_major, ".",
                                               device.compute_minor)},
                      {"multiprocessors", device.limits.multiprocessors},
                      {"memory_bytes", device.memory_bytes},
                      {"l2_bytes", device.l2_bytes}};
  report["peaks"] = {{"copy_bytes_per_second", peaks.copy_bytes_per_second},
                     {"read_bytes_per_second", peaks.read_bytes_per_second},
                     {"mma_ops_per_second", peaks.mma_ops_per_second},
                     {"wgmma_ops_per_second", peaks.wgmma_ops_per_second}};
  report["rows"] = nlohmann::json::array();
  for (const LinearRow& row : rows) {
    report["rows"].push_back({{"matrix", row.shape.name},
                              {"n_out", row.shape.n_out},
                              {"n_in", row.shape.n_in},
                              {"n_tokens", row.n_tokens},
                              {"kernel", name(row.kernel)},
                              {"column_splits", row.column_splits},
                              {"seconds", row.seconds},
                              {"bytes", LinearBytes(row.shape, row.n_tokens)},
                              {"ops", LinearOps(row.shape, row.n_tokens)},
                              {"best_kernel", name(row.best_kernel)},
                              {"best_column_splits", row.best_column_splits},
                              {"best_seconds", row.best_seconds}});
  }
  report["totals"] = nlohmann::json::array();
  for (const LinearTotal& total : TotalsOf(rows)) {
    report["totals"].push_back(
        {{"n_tokens", total.n_tokens},
         {"seconds", total.seconds},
         {"tokens_per_second", total.tokens_per_second}});
  }
  return report.dump(1);
}

}  // namespace tern
