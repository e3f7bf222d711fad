// Speed of a tokenizer on one core.
//
//   bazel run -c opt //bench:tokenizer_bench -- <model.gguf> <text file>
//
// Without arguments the demo model encodes a text made of its own tokens.
// items_per_second counts tokens, bytes_per_second the text.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "model/gguf_reader.h"
#include "model/tokenizer.h"

namespace tern {
namespace {

constexpr char kDemo[] = "models/demo/shakespeare-demo-i2_s.gguf";

template <typename T>
T OrExit(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

std::unique_ptr<Tokenizer> Load(const GgufReader& file) {
  const auto tokens = OrExit(file.GetStringArray("tokenizer.ggml.tokens"));
  return OrExit(Tokenizer::FromGguf(file, static_cast<int>(tokens.size())));
}

std::string RandomText(const Tokenizer& tokenizer) {
  std::mt19937 rng(1);
  std::vector<TokenId> ids(300000);
  for (TokenId& id : ids) {
    do {
      id = rng() % tokenizer.vocab_size();
    } while (tokenizer.IsSpecial(id));
  }
  return tokenizer.Decode(ids, /*keep_special=*/false);
}

void BM_Load(benchmark::State& state, const GgufReader* file) {
  for (auto _ : state) benchmark::DoNotOptimize(Load(*file));
}

void BM_Encode(benchmark::State& state, const Tokenizer* tokenizer,
               const std::string* text) {
  size_t n_tokens = 0;
  for (auto _ : state) {
    n_tokens += OrExit(tokenizer->Encode(*text, {false, false})).size();
  }
  state.SetItemsProcessed(static_cast<int64_t>(n_tokens));
  state.SetBytesProcessed(
      static_cast<int64_t>(state.iterations() * text->size()));
}

void BM_Stream(benchmark::State& state, const Tokenizer* tokenizer,
               const std::string* text) {
  const auto ids = OrExit(tokenizer->Encode(*text, {false, false}));
  for (auto _ : state) {
    IncrementalDecoder decoder(tokenizer);
    for (TokenId id : ids) benchmark::DoNotOptimize(decoder.Next(id));
  }
  state.SetItemsProcessed(
      static_cast<int64_t>(state.iterations() * ids.size()));
}

int Main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const auto file = OrExit(GgufReader::Open(argc > 1 ? argv[1] : kDemo));
  const std::unique_ptr<Tokenizer> tokenizer = Load(*file);
  std::string text;
  if (argc > 2) {
    std::ifstream in(argv[2], std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
  } else {
    text = RandomText(*tokenizer);
  }
  const auto unit = benchmark::kMillisecond;
  benchmark::RegisterBenchmark("Load", BM_Load, file.get())->Unit(unit);
  benchmark::RegisterBenchmark("Encode", BM_Encode, tokenizer.get(), &text)
      ->Unit(unit);
  benchmark::RegisterBenchmark("Stream", BM_Stream, tokenizer.get(), &text)
      ->Unit(unit);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) { return tern::Main(argc, argv); }
