// The float operations, head and sampler on the GPU of this machine, held
// against what it can do at most. That they are right is for the tests whose
// names end in _gpu_test. Needs a driver and nothing else.

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/gpu/device_peaks.h"
#include "bench/gpu/fma_peak.h"
#include "bench/gpu/ops_timing.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/normalise_args.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"

ABSL_FLAG(std::string, json, "", "File to write the report to as JSON.");

namespace tern {
namespace {

using cuda::NormaliseInput;

absl::Status Add(absl::StatusOr<OpTime> time, std::vector<OpTime>* times) {
  RETURN_IF_ERROR(time.status());
  times->push_back(*std::move(time));
  return absl::OkStatus();
}

absl::Status Measure(const DeviceInfo& device, std::vector<OpTime>* times) {
  for (const int context : {512, 2048}) {
    for (const int batch : {1, 4, 16, 64, 256}) {
      RETURN_IF_ERROR(Add(TimeDecodeAttention(device, batch, context), times));
    }
  }
  for (const int prompt : {128, 512, 2048, 4096}) {
    RETURN_IF_ERROR(Add(TimePromptAttention(device, prompt, 4096), times));
  }
  for (const int tokens : {1, 64, 2048}) {
    RETURN_IF_ERROR(
        Add(TimeNormalise(tokens, 2560, NormaliseInput::kPlain), times));
    RETURN_IF_ERROR(
        Add(TimeNormalise(tokens, 2560, NormaliseInput::kResidual), times));
    RETURN_IF_ERROR(
        Add(TimeNormalise(tokens, 6912, NormaliseInput::kRelu2Gate), times));
    RETURN_IF_ERROR(Add(TimeRope(tokens), times));
  }
  for (const int tokens : {1, 2, 8, 32, 64, 256}) {
    RETURN_IF_ERROR(Add(TimeHead(tokens), times));
  }
  for (const int rows : {1, 64}) {
    RETURN_IF_ERROR(Add(TimeSample(rows, 0, 0, 1), times));
    RETURN_IF_ERROR(Add(TimeSample(rows, 1, 40, 0.95f), times));
    RETURN_IF_ERROR(Add(TimeSample(rows, 1, 0, 0.95f), times));
  }
  return absl::OkStatus();
}

std::string Markdown(const std::vector<OpTime>& times, double read_peak,
                     double fma_peak) {
  std::string text =
      "| operation | us | GB/s | of read peak | T fma/s | of fma peak |\n"
      "|---|--:|--:|--:|--:|--:|\n";
  for (const OpTime& t : times) {
    const double bytes_rate = t.bytes / t.seconds;
    const double fma_rate = t.fmas / t.seconds;
    absl::StrAppendFormat(&text, "| %s | %.1f | %.0f | %.0f %% |", t.what,
                          t.seconds * 1e6, bytes_rate * 1e-9,
                          100 * bytes_rate / read_peak);
    if (t.fmas == 0) {
      absl::StrAppend(&text, " | |\n");
    } else {
      absl::StrAppendFormat(&text, " %.2f | %.0f %% |\n", fma_rate * 1e-12,
                            100 * fma_rate / fma_peak);
    }
  }
  return text;
}

absl::Status Run() {
  if (CudaDeviceCount() == 0) {
    return absl::FailedPreconditionError("this machine has no CUDA device");
  }
  ASSIGN_OR_RETURN(const DeviceInfo device, GetDeviceInfo(0));
  ASSIGN_OR_RETURN(const DevicePeaks peaks, MeasureDevicePeaks(device));
  ASSIGN_OR_RETURN(const double fma_peak, MeasureFmaPeak(device));
  std::vector<OpTime> times;
  const absl::Status measured = Measure(device, &times);
  std::cout << device.name << ", one layer of 2B-4T: reads "
            << absl::StrFormat("%.0f GB/s, %.1f T fma/s at most\n\n",
                               peaks.read_bytes_per_second * 1e-9,
                               fma_peak * 1e-12)
            << Markdown(times, peaks.read_bytes_per_second, fma_peak);
  RETURN_IF_ERROR(measured);
  const std::string json = absl::GetFlag(FLAGS_json);
  if (json.empty()) return absl::OkStatus();
  nlohmann::json report = {
      {"device", device.name},
      {"read_bytes_per_second", peaks.read_bytes_per_second},
      {"fma_per_second", fma_peak},
      {"operations", nlohmann::json::array()}};
  for (const OpTime& t : times) {
    report["operations"].push_back({{"what", t.what},
                                    {"seconds", t.seconds},
                                    {"bytes", t.bytes},
                                    {"fmas", t.fmas}});
  }
  std::ofstream file(json);
  file << report.dump(2) << "\n";
  if (!file.flush()) {
    return absl::InternalError(absl::StrCat("cannot write ", json));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = tern::Run();
  if (!status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  return 0;
}
