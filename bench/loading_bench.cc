// What it takes until weights of a file can be computed with.
//
//   bazel run -c opt //bench:loading_bench -- [MODEL]
//
// Weights/...: hashing a model's files, fetching them from a peer, packing all
// of them; of MODEL, or of random weights in the shape of 700M, which are
// written to the temporary folder for it. See bench/weights_rows.h.
//
// The others: the speed at which one core turns weights of a file into what the
// kernels read; items_per_second are weights per second of CPU time. Inputs are
// larger than the last cache, as those of a file are.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/weights_rows.h"
#include "benchmark/benchmark.h"
#include "kernels/head.h"
#include "kernels/head_packing.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "model/ternary_codec.h"
#include "tools/presets.h"
#include "tools/random_model.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

struct NamedType {
  const char* name;
  DenseType type;
};
constexpr NamedType kDenseTypes[] = {
    {"F32", DenseType::kF32},   {"F16", DenseType::kF16},
    {"BF16", DenseType::kBF16}, {"Q8_0", DenseType::kQ8_0},
    {"Q6_K", DenseType::kQ6_K}, {"Q4_K", DenseType::kQ4_K},
};

// 128 MiB of weights around 1 as the types see them, or nearly.
constexpr int kHeadColumns = 2560;
constexpr int kHeadRows = 26240;

std::vector<uint8_t> HeadBytes(DenseType type) {
  std::vector<uint8_t> bytes(kHeadRows * DenseRowBytes(type, kHeadColumns));
  std::mt19937 rng(1);
  // No exponent of any type is that of an infinity.
  for (uint8_t& byte : bytes) byte = rng() & 0x3f;
  return bytes;
}

void PackHead(benchmark::State& state, Isa isa, DenseType type) {
  const std::vector<uint8_t> bytes = HeadBytes(type);
  const DenseView w = {bytes.data(), type, kHeadRows, kHeadColumns};
  std::vector<uint8_t> upper(Int8PlaneBytes(kHeadRows, kHeadColumns));
  std::vector<uint8_t> lower(upper.size());
  std::vector<float> scale(HeadPanelCount(kHeadRows) * kHeadPanelRows);
  std::vector<float> norm(scale.size());
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    for (int p = 0; p < HeadPanelCount(kHeadRows); ++p) {
      const size_t at = p * HeadPanelBytes(kHeadColumns);
      const int row = p * kHeadPanelRows;
      PackInt8Panel(kernels, w, p,
                    {&upper[at], &lower[at], &scale[row], &norm[row]});
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * int64_t{kHeadRows} *
                          kHeadColumns);
}

void WidenRows(benchmark::State& state, Isa isa, DenseType type) {
  const std::vector<uint8_t> bytes = HeadBytes(type);
  const DenseView w = {bytes.data(), type, kHeadRows, kHeadColumns};
  std::vector<float> row(kHeadColumns);
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    for (int r = 0; r < kHeadRows; ++r) {
      benchmark::DoNotOptimize(kernels.widen_row(w, r, row.data()));
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * int64_t{kHeadRows} *
                          kHeadColumns);
}

void PackTernary(benchmark::State& state) {
  const int n_in = static_cast<int>(state.range(0));
  const int n_panels = 512 * 2560 / n_in;
  std::vector<uint8_t> codes(size_t{kPanelRows} * n_in);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = i * 7 % 3;
  std::vector<uint8_t> packed(n_panels * PanelBytes(n_in));
  for (auto _ : state) {
    for (int p = 0; p < n_panels; ++p) {
      PackTernaryPanel(codes.data(), kPanelRows, n_in,
                       packed.data() + p * PanelBytes(n_in));
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * n_panels * kPanelRows *
                          int64_t{n_in});
}

// A matrix [13824, 2560], a panel at a time.
void DecodeTernaryRows(benchmark::State& state, TernaryFormat format,
                       bool pack) {
  constexpr int64_t kColumns = 2560;
  constexpr int64_t kPanels = 432;
  constexpr int64_t kCodes = kPanelRows * kColumns;
  std::vector<uint8_t> codes(kPanels * kCodes);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = i * 7 % 3;
  std::vector<uint8_t> data(TernaryBytes(format, codes.size()));
  EncodeTernary(format, codes.data(), codes.size(), 0.75f, data.data());
  std::vector<uint8_t> packed(PackedBytes(kPanels * kPanelRows, kColumns));
  for (auto _ : state) {
    for (int64_t p = 0; p < kPanels; ++p) {
      benchmark::DoNotOptimize(DecodeTernary(format, data.data(), 0.75f,
                                             p * kCodes, (p + 1) * kCodes,
                                             codes.data()));
      if (!pack) continue;
      PackTernaryPanel(codes.data(), kPanelRows, kColumns,
                       packed.data() + p * PanelBytes(kColumns));
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kPanels * kCodes);
}

void RegisterAll() {
  for (Isa isa : SupportedIsas()) {
    const std::string suffix = "/" + std::string(IsaName(isa));
    for (const NamedType& dense : kDenseTypes) {
      // The oracle takes long.
      if (isa == Isa::kRef && dense.type != DenseType::kF16) continue;
      const DenseType type = dense.type;
      benchmark::RegisterBenchmark(
          ("PackHead/" + std::string(dense.name) + suffix).c_str(),
          [=](benchmark::State& s) { PackHead(s, isa, type); });
      benchmark::RegisterBenchmark(
          ("WidenRows/" + std::string(dense.name) + suffix).c_str(),
          [=](benchmark::State& s) { WidenRows(s, isa, type); });
    }
  }
  benchmark::RegisterBenchmark("PackTernaryPanel", PackTernary)
      ->ArgName("n_in")
      ->Arg(2560)
      ->Arg(6912);
  for (TernaryFormat format :
       {TernaryFormat::kI2S, TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
    const std::string name(TernaryFormatName(format));
    benchmark::RegisterBenchmark(("DecodeTernary/" + name).c_str(),
                                 [=](benchmark::State& s) {
                                   DecodeTernaryRows(s, format, /*pack=*/false);
                                 });
    benchmark::RegisterBenchmark(("DecodeAndPackTernary/" + name).c_str(),
                                 [=](benchmark::State& s) {
                                   DecodeTernaryRows(s, format, /*pack=*/true);
                                 });
  }
}

// The path of a new file.
std::string WriteModelOrExit() {
  const std::string path = (std::filesystem::temp_directory_path() /
                            absl::StrCat("tern-loading-", getpid(), ".gguf"))
                               .string();
  RandomModelOptions options;
  options.config = FindPreset("700m")->config;
  ThreadPool pool(std::max(1u, std::thread::hardware_concurrency()));
  const auto written = WriteRandomModel(path, options, &pool,
                                        [](int64_t, int64_t) { return true; });
  if (!written.ok()) {
    std::cerr << written.status() << "\n";
    std::exit(1);
  }
  return path;
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc > 2) {
    std::cerr << "loading_bench takes one model, or none\n";
    return 1;
  }
  const std::string random_model = argc > 1 ? "" : tern::WriteModelOrExit();
  auto source = tern::ModelSource::Open(argc > 1 ? argv[1] : random_model);
  if (!random_model.empty()) std::filesystem::remove(random_model);
  if (!source.ok()) {
    std::cerr << source.status() << "\n";
    return 1;
  }
  tern::RegisterWeightsRows(*std::move(source));
  tern::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
