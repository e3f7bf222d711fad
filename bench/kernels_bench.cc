// Speed of the kernels on one core, per instruction set, beside the bandwidth
// at which the same core reads memory and the multiply-adds that it does at
// most.
//
//   tern bench kernels --benchmark_filter=Ternary
//
// Rates are per second of CPU time: other programs on the machine disturb them
// less. bytes_per_second counts weights (or keys and values) once, macs
// counts multiply-accumulates. Matrices for one token are larger than the last
// cache; those for many tokens have the shape of a 2B model's layer.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/machine_peaks.h"
#include "benchmark/benchmark.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"
#include "util/logging.h"
#include "worker/huge_buffer.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

HugeBuffer Allocate(size_t bytes) {
  auto buffer = HugeBuffer::Allocate(bytes, "a benchmark");
  CHECK(buffer.ok()) << buffer.status().ToString();
  return std::move(buffer).value();
}

template <typename T>
T* As(const HugeBuffer& buffer) {
  return reinterpret_cast<T*>(buffer.data());
}

// Fills with a pattern of 64 KiB that `next` makes: quick for large buffers.
template <typename Next>
void FillBytes(uint8_t* data, size_t bytes, Next next) {
  std::vector<uint8_t> pattern(65536);
  for (uint8_t& b : pattern) b = next();
  for (size_t at = 0; at < bytes; at += pattern.size()) {
    std::memcpy(data + at, pattern.data(),
                std::min(pattern.size(), bytes - at));
  }
}

struct Tokens {
  Tokens(int n_tokens, int n)
      : q(Allocate(static_cast<size_t>(n_tokens) * n)),
        s(n_tokens, 1),
        sum(n_tokens, 0) {
    std::mt19937 rng(1);
    FillBytes(As<uint8_t>(q), static_cast<size_t>(n_tokens) * n,
              [&] { return static_cast<uint8_t>(rng() % 255 - 127); });
    view = {As<int8_t>(q), s.data(), sum.data(), n_tokens, n};
  }
  HugeBuffer q;
  std::vector<float> s;
  std::vector<int32_t> sum;
  QuantizedTokens view;
};

void Rate(benchmark::State& state, double bytes, double macs) {
  state.SetBytesProcessed(static_cast<int64_t>(bytes * state.iterations()));
  state.counters["macs"] = benchmark::Counter(macs * state.iterations(),
                                              benchmark::Counter::kIsRate);
}

// What the kernels are held against.
void Peaks(benchmark::State& state) {
  const MachinePeaks peaks;
  ThreadPool pool(1);
  double bandwidth = 0;
  double multiply_adds = 0;
  for (auto _ : state) {
    bandwidth = std::max(bandwidth, peaks.ReadBandwidth(&pool));
    multiply_adds = std::max(multiply_adds, peaks.MultiplyAdds(&pool));
  }
  state.counters["bytes_per_second"] = bandwidth;
  state.counters["macs"] = multiply_adds;
}

void TernaryMatmul(benchmark::State& state, Isa isa, TernaryPacking packing) {
  const int n_tokens = static_cast<int>(state.range(0));
  const int n_in = static_cast<int>(state.range(1));
  const int n_out = static_cast<int>(state.range(2));
  const size_t bytes = PackedBytes(n_out, n_in, packing);
  const HugeBuffer packed = Allocate(bytes);
  std::mt19937 rng(1);
  std::vector<uint8_t> codes(static_cast<size_t>(kPanelRows) * n_in);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(rng() % 3);
  // All panels alike.
  const size_t panel_bytes = PanelBytes(n_in, packing);
  PackTernaryPanel(codes.data(), kPanelRows, n_in, As<uint8_t>(packed),
                   packing);
  for (size_t at = panel_bytes; at < bytes; at += panel_bytes) {
    std::memcpy(As<uint8_t>(packed) + at, As<uint8_t>(packed), panel_bytes);
  }
  const TernaryView w = {As<uint8_t>(packed), n_out, n_in, 1.0f, packing};
  const Tokens x(n_tokens, n_in);
  std::vector<float> y(static_cast<size_t>(n_tokens) * n_out);
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    kernels.ternary_matmul(w, x.view, 0, n_out, y.data(), n_out);
    benchmark::ClobberMemory();
  }
  Rate(state, static_cast<double>(bytes),
       static_cast<double>(n_out) * n_in * n_tokens);
}

// An int8 head of random bits.
struct Int8Head {
  static constexpr int kColumns = 2560;
  static constexpr int kRows = 65536;

  Int8Head()
      : upper(Allocate(Int8PlaneBytes(kRows, kColumns))),
        lower(Allocate(Int8PlaneBytes(kRows, kColumns))),
        scale(kRows, 1.0f),
        norm(kRows, 233.0f) {
    std::mt19937 rng(1);
    for (const HugeBuffer* plane : {&upper, &lower}) {
      FillBytes(As<uint8_t>(*plane), plane->size(),
                [&] { return static_cast<uint8_t>(rng()); });
    }
    view = {As<uint8_t>(upper),
            As<uint8_t>(lower),
            scale.data(),
            norm.data(),
            kRows,
            kColumns};
  }
  HugeBuffer upper;
  HugeBuffer lower;
  std::vector<float> scale;
  std::vector<float> norm;
  Int8View view;
};

void HeadInt8(benchmark::State& state, Isa isa) {
  const int n_tokens = static_cast<int>(state.range(0));
  const Int8Head head;
  const Int8View& w = head.view;
  const Tokens x(n_tokens, w.n_columns);
  std::vector<float> y(static_cast<size_t>(n_tokens) * w.n_rows);
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    kernels.head_int8(w, x.view, 0, w.n_rows, y.data(), w.n_rows);
    benchmark::ClobberMemory();
  }
  Rate(state, 2.0 * Int8PlaneBytes(w.n_rows, w.n_columns),
       static_cast<double>(w.n_rows) * w.n_columns * n_tokens);
}

// The upper plane alone.
void HeadInt8Bounds(benchmark::State& state, Isa isa) {
  const int n_tokens = static_cast<int>(state.range(0));
  const Int8Head head;
  const Int8View& w = head.view;
  const Tokens x(n_tokens, w.n_columns);
  const std::vector<float> x_norm(n_tokens, 1.0f);
  std::vector<int32_t> sums(static_cast<size_t>(n_tokens) * w.n_rows);
  std::vector<float> bounds(sums.size() / kHeadGroupRows);
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    kernels.head_int8_bounds(w, x.view, x_norm.data(), 0,
                             HeadPanelCount(w.n_rows), sums.data(),
                             bounds.data(), w.n_rows);
    benchmark::ClobberMemory();
  }
  Rate(state, Int8PlaneBytes(w.n_rows, w.n_columns),
       static_cast<double>(w.n_rows) * w.n_columns * n_tokens);
}

// One group of the lower plane in so many.
void HeadInt8Groups(benchmark::State& state, Isa isa) {
  const int n_tokens = static_cast<int>(state.range(0));
  const int one_in = static_cast<int>(state.range(1));
  const Int8Head head;
  const Int8View& w = head.view;
  const Tokens x(n_tokens, w.n_columns);
  const std::vector<int32_t> sums(static_cast<size_t>(n_tokens) * w.n_rows);
  std::vector<float> y(sums.size());
  std::vector<int32_t> groups;
  for (int g = 0; g < HeadGroupCount(w.n_rows); g += one_in) {
    groups.push_back(g);
  }
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    kernels.head_int8_groups(w, x.view, groups.data(),
                             static_cast<int>(groups.size()), sums.data(),
                             y.data(), w.n_rows);
    benchmark::ClobberMemory();
  }
  const double rows = static_cast<double>(groups.size()) * kHeadGroupRows;
  Rate(state, rows * w.n_columns / 2, rows * w.n_columns * n_tokens);
}

// Rows as a file stores them.
void HeadStored(benchmark::State& state, Isa isa, DenseType type) {
  constexpr int kColumns = 2560;
  constexpr int kRows = 32768;
  const size_t bytes = kRows * DenseRowBytes(type, kColumns);
  const HugeBuffer data = Allocate(bytes);
  std::memset(As<char>(data), 0x31, bytes);
  const DenseView w = {As<char>(data), type, kRows, kColumns};
  const std::vector<float> x(kColumns, 1.0f);
  std::vector<float> y(kRows);
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    kernels.head_stored(w, x.data(), 0, kRows, y.data());
    benchmark::ClobberMemory();
  }
  Rate(state, static_cast<double>(bytes),
       static_cast<double>(kRows) * kColumns);
}

// One task of a step after the other, each `queries` tokens of a sequence of
// its own, whose last sees all positions. 20 query heads of 128 that share 5
// heads of keys and values, or 16 of 96 that share none.
void Attend(benchmark::State& state, Isa isa, int n_heads, int n_kv_heads,
            int head_dim) {
  const int n_positions = static_cast<int>(state.range(0));
  const int n_queries = static_cast<int>(state.range(1));
  const int n_sequences = static_cast<int>(state.range(2));
  const int n_blocks = (n_positions + kKvBlockSize - 1) / kKvBlockSize;
  const size_t elements =
      n_sequences * n_blocks * KvBlockElements(n_kv_heads, head_dim);
  const HugeBuffer k = Allocate(elements * 2);
  const HugeBuffer v = Allocate(elements * 2);
  std::memset(As<char>(k), 0x31, elements * 2);
  std::memset(As<char>(v), 0x32, elements * 2);
  std::vector<int32_t> table(n_sequences * n_blocks);
  std::iota(table.begin(), table.end(), 0);
  const std::vector<float> q(n_queries * n_heads * head_dim, 0.01f);
  std::vector<float> y(q.size());
  int sequence = 0;
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    const AttentionArgs args = {q.data(),
                                As<uint16_t>(k),
                                As<uint16_t>(v),
                                &table[sequence * n_blocks],
                                n_positions - n_queries + 1,
                                n_heads,
                                n_kv_heads,
                                head_dim,
                                0.088388346f,
                                n_queries};
    kernels.attend(args, 0, n_heads, y.data());
    benchmark::ClobberMemory();
    sequence = (sequence + 1) % n_sequences;
  }
  Rate(state, 4.0 * n_positions * n_kv_heads * head_dim,
       2.0 * n_queries * (n_positions - 0.5 * (n_queries - 1)) * n_heads *
           head_dim);
}

// What passes over one token of 6912 elements; bytes of the input.
void PerToken(benchmark::State& state, Isa isa, int which) {
  constexpr int n = 6912;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(n), w(n), y(n);
  for (int i = 0; i < n; ++i) {
    x[i] = normal(rng);
    w[i] = normal(rng);
  }
  const HugeBuffer q = Allocate(n);
  const Kernels& kernels = KernelsFor(isa);
  for (auto _ : state) {
    switch (which) {
      case 0:
        kernels.quantize_token(x.data(), n, As<int8_t>(q));
        break;
      case 1:
        kernels.rms_norm(x.data(), w.data(), n, 1e-5f, y.data());
        break;
      case 2:
        kernels.silu_gate(x.data(), w.data(), n, y.data());
        break;
    }
    benchmark::ClobberMemory();
  }
  Rate(state, 4.0 * n, n);
}

void RegisterAll() {
  benchmark::RegisterBenchmark("Peaks", Peaks);
  for (Isa isa : SupportedIsas()) {
    // The oracle is for comparing, not for measuring.
    if (isa == Isa::kRef) continue;
    const std::string suffix = "/" + std::string(IsaName(isa));
    const auto add = [&](const std::string& name, auto function) {
      return benchmark::RegisterBenchmark((name + suffix).c_str(), function);
    };
    for (TernaryPacking packing : kAllTernaryPackings) {
      if (!KernelsFor(isa).has_packing(packing)) continue;
      const std::string name =
          "TernaryMatmul/" + std::string(TernaryPackingName(packing));
      add(name, [=](benchmark::State& s) { TernaryMatmul(s, isa, packing); })
          ->ArgNames({"tokens", "n_in", "n_out"})
          ->Args({1, 2560, 262144})
          ->Args({1, 2560, 2560})
          ->Args({2, 2560, 262144})
          ->Args({4, 2560, 262144})
          ->Args({6, 2560, 262144})
          ->Args({8, 2560, 262144})
          ->Args({12, 2560, 262144})
          ->Args({16, 2560, 262144})
          ->Args({64, 2560, 262144})
          ->Args({3, 2560, 6912})
          ->Args({4, 2560, 6912})
          ->Args({8, 2560, 6912})
          ->Args({12, 2560, 6912})
          ->Args({16, 2560, 6912})
          ->Args({96, 2560, 6912})
          ->Args({96, 6912, 2560})
          ->Args({96, 4096, 4096})
          ->Args({512, 2560, 6912});
    }
    add("HeadInt8", [=](benchmark::State& s) { HeadInt8(s, isa); })
        ->ArgName("tokens")
        ->Arg(1)
        ->Arg(4)
        ->Arg(12)
        ->Arg(32);
    add("HeadInt8Bounds", [=](benchmark::State& s) { HeadInt8Bounds(s, isa); })
        ->ArgName("tokens")
        ->Arg(1)
        ->Arg(4);
    add("HeadInt8Groups", [=](benchmark::State& s) { HeadInt8Groups(s, isa); })
        ->ArgNames({"tokens", "one_in"})
        ->Args({1, 1})
        ->Args({1, 16})
        ->Args({4, 1});
    const struct {
      const char* name;
      DenseType type;
    } kTypes[] = {{"HeadStored/F16", DenseType::kF16},
                  {"HeadStored/BF16", DenseType::kBF16},
                  {"HeadStored/Q8_0", DenseType::kQ8_0},
                  {"HeadStored/Q6_K", DenseType::kQ6_K},
                  {"HeadStored/Q4_K", DenseType::kQ4_K}};
    for (const auto& dense : kTypes) {
      const DenseType type = dense.type;
      add(dense.name, [=](benchmark::State& s) { HeadStored(s, isa, type); });
    }
    const auto attend = [=](int n_heads, int n_kv_heads, int head_dim) {
      return [=](benchmark::State& s) {
        Attend(s, isa, n_heads, n_kv_heads, head_dim);
      };
    };
    add("AttendShared", attend(20, 5, 128))
        ->ArgNames({"positions", "queries", "sequences"})
        ->Args({64, 1, 1})
        ->Args({512, 1, 1})
        ->Args({4096, 1, 1})
        ->Args({32768, 1, 1})
        ->Args({97, 1, 1})
        ->Args({97, 1, 1024})
        ->Args({256, 256, 1})
        ->Args({4096, 256, 1});
    add("AttendAlone", attend(16, 16, 96))
        ->ArgNames({"positions", "queries", "sequences"})
        ->Args({512, 1, 1})
        ->Args({97, 1, 1})
        ->Args({97, 1, 512})
        ->Args({256, 256, 1});
    add("QuantizeToken", [=](benchmark::State& s) { PerToken(s, isa, 0); });
    add("RmsNorm", [=](benchmark::State& s) { PerToken(s, isa, 1); });
    add("SiluGate", [=](benchmark::State& s) { PerToken(s, isa, 2); });
  }
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  tern::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
