// A whole model in one stage, without the network around it: loading, prompts
// and decoding, each beside what the machine could do at most, measured in the
// same rounds.
//
//   tern bench stage --model=/path/to/model.gguf
//
// What is read at decoding is the packed weights and the keys and values of the
// context (of an int8 head less, where few rows are candidates for the token:
// "of limit" does not count that); what is multiplied at a prompt is the linear
// layers of every token.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "bench/machine_peaks.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/kv_cache.h"
#include "worker/machine.h"
#include "worker/packing_choice.h"
#include "worker/sampler.h"
#include "worker/stage.h"
#include "worker/stage_profile.h"
#include "worker/stage_weights.h"
#include "worker/thread_placement.h"
#include "worker/thread_pool.h"
#include "worker/topology.h"
#include "worker/wanted_logits.h"

ABSL_FLAG(std::string, model, "",
          "GGUF file, or directory with safetensors. Required.");
ABSL_FLAG(std::string, threads, "",
          "Counts of compute threads, such as 1,2. Empty: one and all.");
ABSL_FLAG(std::string, pin, "auto",
          "Whether threads are bound to processors: auto, on or off, as of the "
          "worker.");
ABSL_FLAG(std::string, head, "int8", "Head mode: int8 or stored.");
ABSL_FLAG(std::string, weights_packing, "2bit",
          "Packing of ternary weights: 2bit, base3, tl2, tl1 or auto.");
ABSL_FLAG(std::string, isa, "", "Instruction set. Empty: the best.");
ABSL_FLAG(std::string, prompts, "512", "Lengths of prompts, in tokens.");
ABSL_FLAG(std::string, decodes, "1@128,4@96,16@96,64@96",
          "Decodings: sequences decoded together @ tokens of context of each.");
ABSL_FLAG(int, rounds, 3, "Rounds; the median of each figure is shown.");
ABSL_FLAG(double, seconds, 1, "At least as long is decoded in each round.");
ABSL_FLAG(
    bool, all_logits, false,
    "Decode with all logits, instead of those that greedy sampling wants: "
    "what sequences with penalties, or without top-k, need.");
ABSL_FLAG(bool, profile, false, "Also show where the time goes.");

namespace tern {
namespace {

constexpr int kDecodeStepsMin = 4;

struct Scenario {
  bool is_prompt;
  int batch;
  int context;  // tokens of a prompt, or before the decoded ones
};

// Median figures of a scenario with one number of threads.
struct Figures {
  std::vector<double> tokens_per_s;
  std::vector<double> share;  // of the limit
  StageProfile profile;
  int64_t profiled_steps = 0;
  int64_t n_barriers = 0;
};

double Median(std::vector<double> v) {
  CHECK(!v.empty());
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// A positive number, part of an entry of a flag.
absl::StatusOr<int> Number(absl::string_view flag, absl::string_view entry,
                           absl::string_view part) {
  int value = 0;
  if (absl::SimpleAtoi(part, &value) && value > 0) return value;
  return absl::InvalidArgumentError(absl::StrCat(
      "--", flag, ": \"", entry, "\" is not what it lists; see --help"));
}

std::vector<std::string> Split(const std::string& list) {
  return absl::StrSplit(list, ',', absl::SkipEmpty());
}

absl::StatusOr<std::vector<Scenario>> ParseScenarios() {
  std::vector<Scenario> scenarios;
  for (const std::string& text : Split(absl::GetFlag(FLAGS_prompts))) {
    ASSIGN_OR_RETURN(const int n, Number("prompts", text, text));
    scenarios.push_back({true, 1, n});
  }
  for (const std::string& text : Split(absl::GetFlag(FLAGS_decodes))) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(text, absl::MaxSplits('@', 1));
    ASSIGN_OR_RETURN(const int batch, Number("decodes", text, parts.first));
    ASSIGN_OR_RETURN(const int context, Number("decodes", text, parts.second));
    scenarios.push_back({false, batch, context});
  }
  return scenarios;
}

absl::StatusOr<std::vector<ThreadPlacement>> ParseThreads() {
  std::vector<int> counts;
  for (const std::string& text : Split(absl::GetFlag(FLAGS_threads))) {
    ASSIGN_OR_RETURN(const int n, Number("threads", text, text));
    counts.push_back(n);
  }
  if (counts.empty()) {
    counts.push_back(1);
    if (AvailableProcessors() > 1) counts.push_back(AvailableProcessors());
  }
  PinMode mode;
  if (!ParsePinMode(absl::GetFlag(FLAGS_pin), &mode)) {
    return absl::InvalidArgumentError("--pin is auto, on or off");
  }
  std::vector<ThreadPlacement> placements;
  for (const int n : counts) {
    ASSIGN_OR_RETURN(placements.emplace_back(),
                     PlaceThreads(ThisProcessGrant(), n, mode));
  }
  return placements;
}

absl::StatusOr<const Kernels*> ParseKernels() {
  const std::string name = absl::GetFlag(FLAGS_isa);
  if (name.empty()) return &BestKernels();
  Isa isa;
  if (!ParseIsa(name, &isa) || !IsaSupported(isa)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--isa: this machine has no \"", name, "\"; it has ",
        absl::StrJoin(SupportedIsas(), ", ", [](std::string* out, Isa each) {
          absl::StrAppend(out, IsaName(each));
        })));
  }
  return &KernelsFor(isa);
}

// What the flags ask for.
struct Request {
  std::string model;
  HeadMode head_mode = HeadMode::kInt8;
  std::vector<Scenario> scenarios;
  std::vector<ThreadPlacement> placements;
  const Kernels* kernels;
  int rounds;
};

absl::StatusOr<Request> ParseFlags() {
  Request request;
  request.model = absl::GetFlag(FLAGS_model);
  if (request.model.empty()) {
    return absl::InvalidArgumentError("--model is required");
  }
  if (!ParseHeadMode(absl::GetFlag(FLAGS_head), &request.head_mode)) {
    return absl::InvalidArgumentError("--head is int8 or stored");
  }
  ASSIGN_OR_RETURN(request.scenarios, ParseScenarios());
  if (request.scenarios.empty()) {
    return absl::InvalidArgumentError(
        "nothing to measure: --prompts and --decodes are empty");
  }
  ASSIGN_OR_RETURN(request.placements, ParseThreads());
  ASSIGN_OR_RETURN(request.kernels, ParseKernels());
  request.rounds = absl::GetFlag(FLAGS_rounds);
  if (request.rounds < 1) {
    return absl::InvalidArgumentError("--rounds must be at least 1");
  }
  return request;
}

std::string Name(const Scenario& s) {
  return s.is_prompt ? absl::StrCat("prompt of ", s.context)
                     : absl::StrCat("decode ", s.batch, " at ", s.context);
}

// Multiply-adds of the ternary matrices for one token.
double LinearMultiplyAdds(const StageWeights& weights) {
  double sum = 0;
  for (const LayerWeights& layer : weights.layers) {
    for (const MatrixGroup* group :
         {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) {
      for (const MatrixSlice& slice : group->slices) {
        sum += static_cast<double>(slice.view.n_out) * slice.view.n_in;
      }
    }
  }
  return sum;
}

// A stage of the whole model on a number of threads.
class Bench {
 public:
  Bench(std::shared_ptr<const StageWeights> weights, KvCache* kv,
        const MachinePeaks* peaks, const Kernels* kernels,
        const ThreadPlacement& placement, int max_step_tokens)
      : weights_(std::move(weights)),
        kv_(*kv),
        peaks_(*peaks),
        pool_(placement),
        stage_(weights_, kv, &pool_, kernels, max_step_tokens),
        scratch_(pool_.size()) {}

  void MeasurePeaks() {
    const ThreadPool::CallerBinding binding(pool_);
    bandwidth_ = peaks_.ReadBandwidth(&pool_);
    multiply_adds_ = peaks_.MultiplyAdds(&pool_);
    bandwidths_.push_back(bandwidth_);
    rates_.push_back(multiply_adds_);
  }

  void Run(const Scenario& scenario, Figures* figures) {
    const ThreadPool::CallerBinding binding(pool_);
    const int64_t n_barriers = pool_.barrier_count();
    stage_.set_profile(&figures->profile);
    if (scenario.is_prompt) {
      Prompt(scenario, figures);
    } else {
      Decode(scenario, figures);
    }
    stage_.set_profile(nullptr);
    figures->n_barriers += pool_.barrier_count() - n_barriers;
  }

  int n_threads() const { return pool_.size(); }
  const ThreadPlacement& placement() const { return pool_.placement(); }
  double bandwidth() const { return Median(bandwidths_); }
  double multiply_adds() const { return Median(rates_); }

 private:
  void Prompt(const Scenario& scenario, Figures* figures) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < scenario.context; ++i) {
      tokens.push_back(i * 7919 % weights_->config.vocab_size);
    }
    const std::vector<int32_t> table = BlockTable(0, scenario.context);
    const absl::Time begin = absl::Now();
    stage_.Forward({{tokens, 0, table, true}}, stage_.hidden());
    stage_.ComputeLogits(0, 1, stage_.hidden());
    const double s = absl::ToDoubleSeconds(absl::Now() - begin);
    ++figures->profiled_steps;
    figures->tokens_per_s.push_back(scenario.context / s);
    figures->share.push_back(LinearMultiplyAdds(*weights_) * scenario.context /
                             s / multiply_adds_);
  }

  void Decode(const Scenario& scenario, Figures* figures) {
    std::vector<std::vector<int32_t>> tables;
    for (int i = 0; i < scenario.batch; ++i) {
      tables.push_back(BlockTable(i, scenario.context + 1));
    }
    std::vector<int32_t> tokens(scenario.batch, 1);
    SamplerParams greedy;
    greedy.temperature = 0;
    const WantedLogits wanted =
        absl::GetFlag(FLAGS_all_logits)
            ? WantedLogits{}
            : LogitsWantedBy(greedy, scenario.context + 1);
    std::vector<MicroBatchRow> rows;
    for (int i = 0; i < scenario.batch; ++i) {
      rows.push_back({absl::MakeConstSpan(&tokens[i], 1), scenario.context,
                      tables[i], true, wanted});
    }
    const absl::Time begin = absl::Now();
    int n_steps = 0;
    const absl::Duration least = absl::Seconds(absl::GetFlag(FLAGS_seconds));
    while (n_steps < kDecodeStepsMin || absl::Now() - begin < least) {
      stage_.Forward(rows, stage_.hidden());
      for (int first = 0; first < scenario.batch; first += Stage::kLogitRows) {
        const int count = std::min(Stage::kLogitRows, scenario.batch - first);
        stage_.ComputeLogits(first, count, stage_.hidden());
        pool_.ParallelForEach(count, [&](int64_t i, int thread) {
          const auto token =
              SampleToken(stage_.logits(static_cast<int>(i)), greedy,
                          scenario.context + 1, &scratch_[thread]);
          CHECK(token.ok()) << token.status().ToString();
          tokens[first + i] = *token;
        });
      }
      ++n_steps;
    }
    const double step_s = absl::ToDoubleSeconds(absl::Now() - begin) / n_steps;
    figures->profiled_steps += n_steps;
    figures->tokens_per_s.push_back(scenario.batch / step_s);
    // A step must read all weights and do all multiplications: the longer of
    // the two is its limit.
    const double read_s = StepBytes(scenario) / bandwidth_;
    const double multiply_s = LinearMultiplyAdds(*weights_) * scenario.batch /
                              std::max(multiply_adds_, 1.0);
    figures->share.push_back(std::max(read_s, multiply_s) / step_s);
  }

  double StepBytes(const Scenario& scenario) const {
    const KvCache::Shape& shape = kv_.shape();
    const double kv_bytes = 4.0 * shape.n_layers * shape.n_kv_heads *
                            shape.head_dim * (scenario.context + 1) *
                            scenario.batch;
    return weights_->bytes + kv_bytes;
  }

  static std::vector<int32_t> BlockTable(int sequence, int n_tokens) {
    const int n_blocks = (n_tokens + kKvBlockSize - 1) / kKvBlockSize;
    std::vector<int32_t> table(n_blocks);
    std::iota(table.begin(), table.end(), sequence * n_blocks);
    return table;
  }

  const std::shared_ptr<const StageWeights> weights_;
  const KvCache& kv_;
  const MachinePeaks& peaks_;
  ThreadPool pool_;
  Stage stage_;
  std::vector<SamplerScratch> scratch_;  // [threads]
  double bandwidth_ = 0;
  double multiply_adds_ = 0;
  std::vector<double> bandwidths_;
  std::vector<double> rates_;
};

// Makes every page of the pool resident, with values of an ordinary size.
void FillPool(KvCache* kv) {
  const KvCache::Shape& shape = kv->shape();
  const size_t n = KvBlockElements(shape.n_kv_heads, shape.head_dim);
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    for (int block = 0; block < shape.n_blocks; ++block) {
      const KvBlockView view = kv->Block(layer, block);
      std::fill_n(view.k, n, uint16_t{0x2e66});  // 0.1
      std::fill_n(view.v, n, uint16_t{0x2e66});
    }
  }
}

void ShowProfile(const Figures& figures) {
  const StageProfile& profile = figures.profile;
  for (int i = 0; i < kStageOpCount; ++i) {
    const StageOp op = static_cast<StageOp>(i);
    const double ms = profile.milliseconds(op);
    if (ms == 0) continue;
    std::printf("    %-16s %9.3f ms %5.1f %%\n",
                std::string(StageOpName(op)).c_str(),
                ms / static_cast<double>(figures.profiled_steps),
                100 * ms / profile.total_milliseconds());
  }
  if (profile.head_candidate_share() > 0) {
    std::printf("    %.1f %% of the head's rows were candidates\n",
                100 * profile.head_candidate_share());
  }
  std::printf("    %-16s %9.0f a step\n", "barriers",
              static_cast<double>(figures.n_barriers) /
                  static_cast<double>(figures.profiled_steps));
}

absl::Status Run(const Request& request) {
  const std::vector<Scenario>& scenarios = request.scenarios;
  const ThreadPlacement& most =
      *std::max_element(request.placements.begin(), request.placements.end(),
                        [](const ThreadPlacement& a, const ThreadPlacement& b) {
                          return a.n_threads < b.n_threads;
                        });
  ASSIGN_OR_RETURN(const std::shared_ptr<const ModelSource> source,
                   ModelSource::Open(request.model));
  const ModelConfig& config = source->config();
  StageSpec spec{{0, config.n_layers, true, true}, request.head_mode};
  std::shared_ptr<const StageWeights> weights;
  absl::Time begin;
  {
    ThreadPool pool(most);
    {
      const ThreadPool::CallerBinding binding(pool);
      ASSIGN_OR_RETURN(spec.packing,
                       ChoosePacking(absl::GetFlag(FLAGS_weights_packing),
                                     *request.kernels, &pool));
    }
    begin = absl::Now();
    ASSIGN_OR_RETURN(weights, LoadStageWeights(
                                  source, spec, &pool, [](int64_t, int64_t) {},
                                  [] { return false; }));
  }
  const double load_s = absl::ToDoubleSeconds(absl::Now() - begin);
  std::printf("%s, head %s, isa %s, packing %s\n", request.model.c_str(),
              std::string(HeadModeName(spec.head_mode)).c_str(),
              std::string(IsaName(request.kernels->isa)).c_str(),
              std::string(TernaryPackingName(spec.packing)).c_str());
  std::printf("load %.2f s with %d threads; %.1f MB packed, %.1f MB resident\n",
              load_s, most.n_threads, weights->bytes / 1e6,
              ResidentBytes() / 1e6);

  int n_blocks = 0;
  int max_step_tokens = 1;
  for (const Scenario& s : scenarios) {
    const int per_sequence = (s.context + 1 + kKvBlockSize - 1) / kKvBlockSize;
    n_blocks = std::max(n_blocks, per_sequence * s.batch);
    max_step_tokens =
        std::max(max_step_tokens, s.is_prompt ? s.context : s.batch);
  }
  ASSIGN_OR_RETURN(
      const std::unique_ptr<KvCache> kv,
      KvCache::Create({config.n_layers, config.n_kv_heads, config.head_dim,
                       n_blocks, config.context_length},
                      NodesOf(most)));
  FillPool(kv.get());

  const MachinePeaks peaks;
  std::vector<std::unique_ptr<Bench>> benches;
  for (const ThreadPlacement& placement : request.placements) {
    benches.push_back(std::make_unique<Bench>(weights, kv.get(), &peaks,
                                              request.kernels, placement,
                                              max_step_tokens));
  }
  std::vector<std::vector<Figures>> figures(
      benches.size(), std::vector<Figures>(scenarios.size()));
  for (int round = 0; round < request.rounds; ++round) {
    for (size_t s = 0; s < scenarios.size(); ++s) {
      for (size_t b = 0; b < benches.size(); ++b) {
        benches[b]->MeasurePeaks();
        benches[b]->Run(scenarios[s], &figures[b][s]);
      }
    }
  }

  for (const auto& bench : benches) {
    std::printf("%d thread%s: reads %.1f GB/s, %.0f G multiply-adds/s; %s\n",
                bench->n_threads(), bench->n_threads() == 1 ? "" : "s",
                bench->bandwidth() / 1e9, bench->multiply_adds() / 1e9,
                Describe(bench->placement()).c_str());
  }
  std::printf("\n%-20s %8s %10s %8s %10s\n", "", "threads", "tokens/s",
              "of limit", "of 1st row");
  for (size_t s = 0; s < scenarios.size(); ++s) {
    const double first = Median(figures[0][s].tokens_per_s);
    for (size_t b = 0; b < benches.size(); ++b) {
      const double rate = Median(figures[b][s].tokens_per_s);
      std::printf("%-20s %8d %10.1f %6.0f %% %8.2f x\n",
                  Name(scenarios[s]).c_str(), benches[b]->n_threads(), rate,
                  100 * Median(figures[b][s].share), rate / first);
      if (absl::GetFlag(FLAGS_profile)) ShowProfile(figures[b][s]);
    }
  }
  return absl::OkStatus();
}

int Main() {
  const auto request = ParseFlags();
  if (!request.ok()) {
    std::fprintf(stderr, "stage_bench: %s\n",
                 std::string(request.status().message()).c_str());
    return 2;
  }
  const absl::Status status = Run(*request);
  if (status.ok()) return EXIT_SUCCESS;
  std::fprintf(stderr, "stage_bench: %s\n", status.ToString().c_str());
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Measures prompts and decoding of a whole model in one stage, beside "
      "the\n"
      "machine's limits.\n\nusage: tern bench stage --model=FILE [FLAGS]");
  absl::ParseCommandLine(argc, argv);
  return tern::Main();
}
