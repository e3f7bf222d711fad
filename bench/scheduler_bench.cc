// Cost of the coordinator's pure core: planning a step, taking its result.
//
//   bazel run -c opt //bench:scheduler_bench
//
// ScheduleDecode, CompleteDecode: the CPU time of one call, in the column
// "Time"; items are rows of the step. Requests: items are output tokens.

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "coordinator/block_manager.h"
#include "coordinator/scheduler.h"
#include "coordinator/sequence.h"
#include "coordinator/step_plan.h"
#include "util/logging.h"

namespace tern {
namespace {

constexpr int kContext = 1024;
constexpr int kBlockSize = 16;

// `n` sequences that decode for a long time, in one micro-batch.
Scheduler::Options OptionsFor(int n) {
  Scheduler::Options options;
  options.max_sequences = n;
  options.max_waiting = n;
  options.max_step_tokens = std::max(512, 2 * n);
  return options;
}

void Start(int n, Scheduler* scheduler) {
  Scheduler::Capacity capacity;
  capacity.block_size = kBlockSize;
  capacity.n_blocks = n * (kContext / kBlockSize + 1);
  CHECK(scheduler->StartPipeline(0, capacity).empty());
}

void Add(int64_t id, int n_prompt, int n_output, Scheduler* scheduler) {
  SequenceParameters parameters;
  parameters.prompt.assign(n_prompt, 1);
  parameters.max_output_tokens = n_output;
  CHECK(scheduler->Add(id, std::move(parameters)).ok());
}

// What a worker would answer.
StepResult ResultOf(const StepPlan& plan) {
  StepResult result;
  result.step_id = plan.step_id;
  for (const StepRow& row : plan.rows) {
    if (!row.samples) continue;
    SampledToken sampled;
    sampled.run_id = row.run_id;
    sampled.position = row.position + static_cast<int>(row.tokens.size());
    sampled.token_id = 1;
    result.sampled.push_back(std::move(sampled));
  }
  return result;
}

// Turns until every sequence decodes.
void Prefill(Scheduler* scheduler, int n) {
  std::vector<SequenceEvent> events;
  while (true) {
    const std::optional<StepPlan> plan = scheduler->Schedule(0);
    CHECK(plan.has_value());
    CHECK(scheduler->Complete(0, ResultOf(*plan), &events).ok());
    if (static_cast<int>(plan->rows.size()) == n) return;
  }
}

// CPU time of this thread: other processes do not count.
double CpuSeconds() {
  timespec time;
  CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
  return static_cast<double>(time.tv_sec) + 1e-9 * time.tv_nsec;
}

enum class Part { kSchedule, kComplete };

// Decoding of range(0) sequences: the time of one part of the loop.
void Decode(benchmark::State& state, Part part) {
  const int n = static_cast<int>(state.range(0));
  Scheduler scheduler(OptionsFor(n));
  std::vector<SequenceEvent> events;
  int64_t next_id = 1;
  int steps_left = 0;
  for (auto _ : state) {
    if (steps_left == 0) {
      // Contexts do not go on for ever.
      scheduler.StopPipeline(0);
      for (int64_t id = next_id - n; id < next_id; ++id) scheduler.Abort(id);
      Start(n, &scheduler);
      for (int i = 0; i < n; ++i) Add(next_id++, 8, kContext - 8, &scheduler);
      Prefill(&scheduler, n);
      steps_left = kContext / 2;
    }
    --steps_left;
    events.clear();
    const double begin = CpuSeconds();
    const std::optional<StepPlan> plan = scheduler.Schedule(0);
    const double planned = CpuSeconds();
    CHECK(plan.has_value() && static_cast<int>(plan->rows.size()) == n);
    const StepResult result = ResultOf(*plan);
    const double answered = CpuSeconds();
    CHECK(scheduler.Complete(0, result, &events).ok());
    const double completed = CpuSeconds();
    state.SetIterationTime(part == Part::kSchedule ? planned - begin
                                                   : completed - answered);
  }
  state.SetItemsProcessed(state.iterations() * n);
}

void ScheduleDecode(benchmark::State& state) { Decode(state, Part::kSchedule); }
BENCHMARK(ScheduleDecode)
    ->UseManualTime()
    ->Arg(16)
    ->Arg(64)
    ->Arg(256)
    ->Arg(1024);

void CompleteDecode(benchmark::State& state) { Decode(state, Part::kComplete); }
BENCHMARK(CompleteDecode)
    ->UseManualTime()
    ->Arg(16)
    ->Arg(64)
    ->Arg(256)
    ->Arg(1024);

// The whole life of range(0) requests of 96 tokens in and 64 out: admission,
// mixed steps of prefill and decoding, ends.
void Requests(benchmark::State& state) {
  const int n = static_cast<int>(state.range(0));
  Scheduler scheduler(OptionsFor(n));
  Start(n, &scheduler);
  std::vector<SequenceEvent> events;
  int64_t next_id = 1;
  for (auto _ : state) {
    for (int i = 0; i < n; ++i) Add(next_id++, 96, 64, &scheduler);
    while (scheduler.n_sequences() > 0) {
      const std::optional<StepPlan> plan = scheduler.Schedule(0);
      CHECK(plan.has_value());
      events.clear();
      CHECK(scheduler.Complete(0, ResultOf(*plan), &events).ok());
    }
  }
  state.SetItemsProcessed(state.iterations() * n * 64);
}
BENCHMARK(Requests)->Arg(16)->Arg(256);

// Finding the blocks of a text of range(0) blocks among 16 such texts. Items
// are blocks.
void FindPrefix(benchmark::State& state) {
  constexpr int kTexts = 16;
  const int n_blocks = static_cast<int>(state.range(0));
  BlockManager blocks(kTexts * n_blocks, kBlockSize);
  const BlockManager::PrefixId root = blocks.Root("tenant");
  std::vector<std::vector<int32_t>> texts(kTexts);
  for (int t = 0; t < kTexts; ++t) {
    BlockManager::PrefixId prefix = root;
    for (int b = 0; b < n_blocks; ++b) {
      for (int i = 0; i < kBlockSize; ++i) {
        texts[t].push_back((t * 7919 + b * 31 + i * 17) % 32000);
      }
      prefix = blocks.Publish(
          blocks.Allocate(), prefix,
          absl::MakeConstSpan(texts[t]).subspan(b * kBlockSize, kBlockSize),
          /*step_id=*/1);
    }
  }
  int t = 0;
  for (auto _ : state) {
    const absl::Span<const int32_t> text = texts[t++ % kTexts];
    BlockManager::PrefixId prefix = root;
    for (int b = 0; b < n_blocks; ++b) {
      const std::optional<BlockManager::Known> known =
          blocks.Find(prefix, text.subspan(b * kBlockSize, kBlockSize));
      CHECK(known.has_value());
      prefix = known->prefix;
    }
    benchmark::DoNotOptimize(prefix);
  }
  state.SetItemsProcessed(state.iterations() * n_blocks);
}
BENCHMARK(FindPrefix)->Arg(8)->Arg(512);

}  // namespace
}  // namespace tern

BENCHMARK_MAIN();
