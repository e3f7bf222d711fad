#include "coordinator/scheduler.h"

#include <deque>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/testing/toy_model.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr int kVocab = 1000;
constexpr int kBlockSize = 4;

// A scheduler, the toy workers it plans for, and what came out.
class Bench {
 public:
  Bench(Scheduler::Options options, int n_blocks, int n_stages)
      : options_(options), n_stages_(n_stages), scheduler_(options) {
    StartEpoch(n_blocks);
  }

  void StartEpoch(int n_blocks) {
    worker_ = std::make_unique<ToyWorker>(n_blocks, kBlockSize,
                                          options_.max_step_tokens, kVocab);
    results_.clear();
    Take(scheduler_.StartEpoch({n_blocks, kBlockSize, n_stages_}));
  }

  // Queues a prompt of `n_prompt` tokens, different for each id.
  absl::Status Add(int64_t id, int n_prompt, int n_output,
                   SequenceParameters parameters = {}) {
    for (int i = 0; i < n_prompt; ++i) {
      parameters.prompt.push_back(static_cast<int32_t>((id * 31 + i) % kVocab));
    }
    parameters.max_output_tokens = n_output;
    parameters.sampler.seed = id;
    prompts_[id] = parameters.prompt;
    return scheduler_.Add(id, std::move(parameters));
  }

  // Plans and executes a step. False when there is nothing to plan.
  bool Start() {
    std::optional<StepPlan> plan = scheduler_.Schedule();
    if (!plan.has_value()) return false;
    StepResult result;
    const absl::Status status = worker_->Run(*plan, &result);
    EXPECT_TRUE(status.ok()) << status;
    plans_.push_back(*std::move(plan));
    results_.push_back(std::move(result));
    return true;
  }

  // Reports the oldest step in flight.
  bool Finish() {
    if (results_.empty()) return false;
    std::vector<SequenceEvent> events;
    const absl::Status status = scheduler_.Complete(results_.front(), &events);
    EXPECT_TRUE(status.ok()) << status;
    results_.pop_front();
    Take(std::move(events));
    return true;
  }

  // Runs until nothing is left to do, with as much in flight as allowed.
  void RunAll() {
    do {
      while (Start()) {
      }
    } while (Finish());
  }

  void ExpectAnswer(int64_t id, int n) {
    EXPECT_EQ(answers_[id], ToyAnswer(prompts_[id], id, n, kVocab))
        << "sequence " << id;
  }

  void Take(std::vector<SequenceEvent> events) {
    for (SequenceEvent& event : events) {
      if (event.token >= 0) answers_[event.id].push_back(event.token);
      if (event.ended) ends_[event.id] = std::move(event);
    }
  }

  const Scheduler::Options options_;
  const int n_stages_;
  Scheduler scheduler_;
  std::unique_ptr<ToyWorker> worker_;
  std::deque<StepResult> results_;
  std::vector<StepPlan> plans_;
  std::map<int64_t, std::vector<int32_t>> prompts_;
  std::map<int64_t, std::vector<int32_t>> answers_;
  std::map<int64_t, SequenceEvent> ends_;
};

Scheduler::Options Options(int max_step_tokens, int max_sequences) {
  Scheduler::Options options;
  options.max_step_tokens = max_step_tokens;
  options.max_sequences = max_sequences;
  options.min_prefill_tokens = 4;
  return options;
}

TEST(Scheduler, AnswersOneSequenceAndFreesIt) {
  Bench bench(Options(16, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 5, 7).ok());
  bench.RunAll();
  bench.ExpectAnswer(1, 7);
  EXPECT_EQ(bench.ends_[1].reason, FinishReason::kLength);
  EXPECT_EQ(bench.worker_->n_blocks_in_use(), 0);
  EXPECT_EQ(bench.scheduler_.n_sequences(), 0);
}

TEST(Scheduler, SamplesOfOnePromptAreQueuedTogetherOrNotAtAll) {
  Scheduler::Options options = Options(16, 4);
  options.max_waiting = 3;
  Scheduler scheduler(options);
  SequenceParameters parameters;
  parameters.prompt = {1, 2};
  parameters.max_output_tokens = 2;
  parameters.min_output_tokens = 1;
  ASSERT_TRUE(scheduler.Add(10, parameters, 2).ok());
  EXPECT_FALSE(scheduler.HasRoomFor(2));
  const absl::Status refused = scheduler.Add(20, parameters, 2);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(scheduler.n_sequences(), 2);
  EXPECT_TRUE(scheduler.Add(30, parameters, 1).ok());

  scheduler.StartEpoch({8, kBlockSize, 1});
  const std::optional<StepPlan> plan = scheduler.Schedule();
  ASSERT_TRUE(plan.has_value());
  ASSERT_EQ(plan->new_sequences.size(), 3u);
  EXPECT_EQ(plan->new_sequences[0].sampler.sample_index, 0);
  EXPECT_EQ(plan->new_sequences[1].sampler.sample_index, 1);
  EXPECT_EQ(plan->new_sequences[2].sampler.sample_index, 0);
  EXPECT_EQ(plan->new_sequences[1].prompt_token_count, 2);
  EXPECT_EQ(plan->new_sequences[1].min_output_tokens, 1);
}

TEST(Scheduler, AReplayStillTellsPromptFromOutput) {
  Bench bench(Options(16, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 5, 7).ok());
  for (int i = 0; i < 3; ++i) {
    bench.Start();
    bench.Finish();
  }
  bench.scheduler_.PreemptAll();
  bench.StartEpoch(8);
  bench.RunAll();
  bench.ExpectAnswer(1, 7);
  std::vector<int> prompt_token_counts;
  for (const StepPlan& plan : bench.plans_) {
    for (const SequenceSetup& setup : plan.new_sequences) {
      prompt_token_counts.push_back(setup.prompt_token_count);
    }
  }
  EXPECT_EQ(prompt_token_counts, (std::vector<int>{5, 5}));
}

TEST(Scheduler, ATokenWithoutTheLogprobAskedForIsABrokenWorkers) {
  Scheduler scheduler(Options(16, 4));
  scheduler.StartEpoch({8, kBlockSize, 1});
  SequenceParameters parameters;
  parameters.prompt = {1, 2};
  parameters.max_output_tokens = 2;
  parameters.sampler.logprobs = 0;
  ASSERT_TRUE(scheduler.Add(1, parameters).ok());
  const std::optional<StepPlan> plan = scheduler.Schedule();
  ASSERT_TRUE(plan.has_value());
  StepResult result;
  result.step_id = plan->step_id;
  result.sampled.push_back({plan->rows[0].run_id, 2, 3, {}, {}});
  std::vector<SequenceEvent> events;
  EXPECT_TRUE(absl::IsInternal(scheduler.Complete(result, &events)));
  result.sampled[0].logprobs = TokenLogprobs{-0.5f, {}};
  EXPECT_TRUE(scheduler.Complete(result, &events).ok());
  ASSERT_EQ(events.size(), 1u);
  ASSERT_TRUE(events[0].logprobs.has_value());
  EXPECT_EQ(events[0].logprobs->logprob, -0.5f);
}

TEST(Scheduler, CutsALongPromptIntoChunksAndSamplesAfterTheLast) {
  Bench bench(Options(16, 4), 16, 1);
  ASSERT_TRUE(bench.Add(1, 40, 1).ok());
  bench.RunAll();
  std::vector<size_t> chunks;
  for (const StepPlan& plan : bench.plans_) {
    for (const StepRow& row : plan.rows) {
      chunks.push_back(row.tokens.size());
      EXPECT_EQ(row.samples, row.position + row.tokens.size() == 40u);
    }
  }
  EXPECT_EQ(chunks, (std::vector<size_t>{16, 16, 8}));
  bench.ExpectAnswer(1, 1);
}

TEST(Scheduler, LongPromptDoesNotHoldUpDecodes) {
  Bench bench(Options(16, 4), 200, 1);
  ASSERT_TRUE(bench.Add(1, 2, 30).ok());
  bench.Start();
  bench.Finish();
  ASSERT_TRUE(bench.Add(2, 200, 1).ok());
  for (int step = 0; step < 10; ++step) {
    ASSERT_TRUE(bench.Start());
    const StepPlan& plan = bench.plans_.back();
    ASSERT_EQ(plan.rows.size(), 2u);
    EXPECT_EQ(plan.rows[0].tokens.size(), 1u);  // the decode, first
    EXPECT_GT(plan.rows[1].tokens.size(), 1u);
    bench.Finish();
  }
  bench.RunAll();
  bench.ExpectAnswer(1, 30);
  bench.ExpectAnswer(2, 1);
}

TEST(Scheduler, SplitsDecodesEvenlyOverTheStages) {
  Bench bench(Options(64, 8), 100, 3);
  for (int id = 1; id <= 7; ++id) ASSERT_TRUE(bench.Add(id, 2, 40).ok());
  for (int i = 0; i < 12; ++i) {  // past the prompts
    while (bench.Start()) {
    }
    bench.Finish();
  }
  const size_t n_before = bench.plans_.size();
  for (int i = 0; i < 9; ++i) {
    while (bench.Start()) {
    }
    bench.Finish();
  }
  for (size_t i = n_before; i < bench.plans_.size(); ++i) {
    EXPECT_GE(bench.plans_[i].rows.size(), 1u);
    EXPECT_LE(bench.plans_[i].rows.size(), 3u);
  }
  bench.RunAll();
  for (int id = 1; id <= 7; ++id) bench.ExpectAnswer(id, 40);
}

TEST(Scheduler, SpreadsPromptsOverTheStages) {
  Bench bench(Options(64, 8), 100, 2);
  ASSERT_TRUE(bench.Add(1, 20, 1).ok());
  ASSERT_TRUE(bench.Add(2, 20, 1).ok());
  ASSERT_TRUE(bench.Start());
  ASSERT_TRUE(bench.Start());
  EXPECT_FALSE(bench.Start());
  EXPECT_EQ(bench.plans_[0].rows.size(), 1u);
  EXPECT_EQ(bench.plans_[1].rows.size(), 1u);
}

TEST(Scheduler, KeepsASequenceInOneMicroBatch) {
  Bench bench(Options(4, 8), 100, 3);
  ASSERT_TRUE(bench.Add(1, 20, 4).ok());
  EXPECT_TRUE(bench.Start());
  EXPECT_FALSE(bench.Start());
  bench.RunAll();
  bench.ExpectAnswer(1, 4);
}

TEST(Scheduler, PreemptsTheLatestAndReplaysItsTokenLog) {
  // Two sequences that fit one by one, not together.
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 4, 28).ok());
  ASSERT_TRUE(bench.Add(2, 4, 28).ok());
  bench.RunAll();
  EXPECT_GT(bench.scheduler_.n_preemptions(), 0);
  bench.ExpectAnswer(1, 28);
  bench.ExpectAnswer(2, 28);
  EXPECT_EQ(bench.worker_->n_blocks_in_use(), 0);
}

TEST(Scheduler, PreemptsALowerPriorityForAHigherOne) {
  Bench bench(Options(32, 1), 8, 1);
  SequenceParameters batch;
  batch.sequence_class = SequenceClass::kBatch;
  ASSERT_TRUE(bench.Add(1, 4, 20, batch).ok());
  bench.Start();
  bench.Finish();
  ASSERT_TRUE(bench.Add(2, 4, 3).ok());
  while (bench.ends_.count(2) == 0) {
    ASSERT_TRUE(bench.Start());
    bench.Finish();
  }
  EXPECT_EQ(bench.ends_.count(1), 0u);
  bench.RunAll();
  bench.ExpectAnswer(1, 20);
  bench.ExpectAnswer(2, 3);
}

TEST(Scheduler, TakesInteractiveThenPriorityThenArrival) {
  Bench bench(Options(32, 1), 8, 1);
  SequenceParameters batch, urgent;
  batch.sequence_class = SequenceClass::kBatch;
  urgent.priority = 5;
  ASSERT_TRUE(bench.Add(1, 3, 1, batch).ok());
  ASSERT_TRUE(bench.Add(2, 3, 1).ok());
  ASSERT_TRUE(bench.Add(3, 3, 1).ok());
  ASSERT_TRUE(bench.Add(4, 3, 1, urgent).ok());
  std::vector<int32_t> order;
  while (bench.Start()) {
    for (const StepRow& row : bench.plans_.back().rows) {
      order.push_back(row.tokens[0]);
    }
    bench.Finish();
  }
  EXPECT_EQ(order, (std::vector<int32_t>{4 * 31, 2 * 31, 3 * 31, 1 * 31}));
}

TEST(Scheduler, RefusesWhatWaitsTooLongOrNeverFits) {
  Scheduler::Options options = Options(32, 1);
  options.max_waiting = 2;
  Bench bench(options, 8, 1);
  const absl::Status too_big = bench.Add(1, 30, 4);
  EXPECT_EQ(too_big.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(too_big.message().find("33 positions"), absl::string_view::npos);
  EXPECT_NE(too_big.message().find("has 32"), absl::string_view::npos);
  ASSERT_TRUE(bench.Add(2, 30, 3).ok());
  ASSERT_TRUE(bench.Add(3, 3, 1).ok());
  EXPECT_EQ(bench.Add(4, 3, 1).code(), absl::StatusCode::kResourceExhausted);
  bench.RunAll();
  bench.ExpectAnswer(2, 3);
  EXPECT_TRUE(bench.Add(5, 3, 1).ok());
}

TEST(Scheduler, TellsIdleWorkersToFreeAnAbortedSequence) {
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 4, 20).ok());
  bench.Start();
  EXPECT_TRUE(bench.scheduler_.Abort(1));
  EXPECT_FALSE(bench.scheduler_.Abort(1));
  bench.Finish();
  EXPECT_TRUE(bench.answers_.empty());
  EXPECT_EQ(bench.worker_->n_sequences(), 1);
  ASSERT_TRUE(bench.Start());
  EXPECT_TRUE(bench.plans_.back().rows.empty());
  EXPECT_EQ(bench.worker_->n_sequences(), 0);
  bench.Finish();
  EXPECT_FALSE(bench.Start());
}

TEST(Scheduler, EndsSequencesAtTheirDeadline) {
  Bench bench(Options(32, 4), 8, 1);
  const absl::Time start = absl::UnixEpoch();
  SequenceParameters parameters;
  parameters.deadline = start + absl::Seconds(1);
  ASSERT_TRUE(bench.Add(1, 4, 20, parameters).ok());
  EXPECT_EQ(bench.scheduler_.next_deadline(), parameters.deadline);
  bench.Take(bench.scheduler_.ExpireDeadlines(start));
  EXPECT_TRUE(bench.ends_.empty());
  bench.Take(bench.scheduler_.ExpireDeadlines(parameters.deadline));
  EXPECT_EQ(bench.ends_[1].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(bench.scheduler_.next_deadline(), absl::InfiniteFuture());
}

TEST(Scheduler, FailedRowEndsItsSequenceOnly) {
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 4, 2).ok());
  ASSERT_TRUE(bench.Add(2, 4, 2).ok());
  bench.Start();
  bench.results_[0].sampled[0].status = absl::InternalError("NaN in logits");
  bench.RunAll();
  EXPECT_EQ(bench.ends_[1].status.code(), absl::StatusCode::kInternal);
  bench.ExpectAnswer(2, 2);
}

TEST(Scheduler, RefusesAResultThatDoesNotAnswerTheStep) {
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 4, 2).ok());
  bench.Start();
  std::vector<SequenceEvent> events;
  StepResult wrong = bench.results_.front();
  wrong.step_id = 2;
  EXPECT_FALSE(bench.scheduler_.Complete(wrong, &events).ok());
  wrong = bench.results_.front();
  wrong.sampled[0].position = 5;
  EXPECT_FALSE(bench.scheduler_.Complete(wrong, &events).ok());
  wrong.sampled.clear();
  EXPECT_FALSE(bench.scheduler_.Complete(wrong, &events).ok());
  wrong = bench.results_.front();
  wrong.sampled.push_back(wrong.sampled[0]);
  EXPECT_FALSE(bench.scheduler_.Complete(wrong, &events).ok());
  EXPECT_TRUE(events.empty());
  bench.RunAll();
  bench.ExpectAnswer(1, 2);
}

TEST(Scheduler, GoesOnWithTheSameTokensAfterThePipelineIsLost) {
  Bench bench(Options(8, 4), 16, 2);
  for (int id = 1; id <= 3; ++id) ASSERT_TRUE(bench.Add(id, 6, 9).ok());
  for (int i = 0; i < 5; ++i) {
    while (bench.Start()) {
    }
    bench.Finish();
  }
  while (bench.Start()) {  // lost with steps in flight
  }
  bench.scheduler_.PreemptAll();
  EXPECT_FALSE(bench.Start());
  bench.StartEpoch(16);
  bench.RunAll();
  for (int id = 1; id <= 3; ++id) bench.ExpectAnswer(id, 9);
}

TEST(Scheduler, EndsWhatDoesNotFitTheNextPipeline) {
  Bench bench(Options(8, 4), 16, 1);
  ASSERT_TRUE(bench.Add(1, 20, 20).ok());
  ASSERT_TRUE(bench.Add(2, 4, 4).ok());
  bench.Start();
  bench.scheduler_.PreemptAll();
  bench.StartEpoch(4);
  EXPECT_EQ(bench.ends_[1].status.code(), absl::StatusCode::kResourceExhausted);
  bench.RunAll();
  bench.ExpectAnswer(2, 4);
}

// Random arrivals, aborts, deadlines, lost pipelines and small pools. The toy
// workers refuse double use of blocks, gaps, repeats and oversized steps; the
// answers show that every replay presented exactly its token log.
void RunRandomTrace(uint32_t seed, std::vector<StepPlan>* plans) {
  SCOPED_TRACE(absl::StrCat("seed=", seed));
  std::mt19937 random(seed);
  const auto draw = [&random](int low, int high) {
    return low + static_cast<int>(random() % (high - low + 1));
  };
  Scheduler::Options options;
  options.max_step_tokens = draw(1, 40);
  options.max_sequences = draw(1, 8);
  options.max_waiting = draw(1, 30);
  options.prefill_spread_steps = draw(1, 6);
  options.min_prefill_tokens = draw(1, 16);
  int n_blocks = draw(2, 24);
  const int n_stages = draw(1, 4);
  Bench bench(options, n_blocks, n_stages);
  std::map<int64_t, int> n_wanted;
  std::set<int64_t> aborted;
  absl::Time now = absl::UnixEpoch();
  int64_t next_id = 1;

  const auto act = [&] {
    switch (draw(0, 9)) {
      case 0:
      case 1: {
        SequenceParameters parameters;
        parameters.sequence_class = draw(0, 2) == 0
                                        ? SequenceClass::kBatch
                                        : SequenceClass::kInteractive;
        parameters.priority = draw(-1, 1);
        if (draw(0, 9) == 0) {
          parameters.deadline = now + absl::Seconds(draw(1, 60));
        }
        const int n_output = draw(1, 20);
        const int64_t id = next_id++;
        if (bench.Add(id, draw(1, 60), n_output, parameters).ok()) {
          n_wanted[id] = n_output;
        }
        break;
      }
      case 2:
        if (next_id > 1 && draw(0, 3) == 0) {
          const int64_t id = draw(1, static_cast<int>(next_id) - 1);
          if (bench.scheduler_.Abort(id)) aborted.insert(id);
        }
        break;
      case 3:
        if (draw(0, 19) == 0) {
          bench.scheduler_.PreemptAll();
          if (draw(0, 3) == 0) n_blocks = draw(2, 24);
          bench.StartEpoch(n_blocks);
        }
        break;
      case 4:
        now += absl::Seconds(draw(0, 3));
        bench.Take(bench.scheduler_.ExpireDeadlines(now));
        break;
      case 5:
      case 6:
        bench.Finish();
        break;
      default:
        bench.Start();
        break;
    }
    EXPECT_LE(bench.scheduler_.n_running(), options.max_sequences);
    EXPECT_LE(bench.scheduler_.n_in_flight(), n_stages);
    if (bench.scheduler_.n_in_flight() == 0 &&
        bench.scheduler_.n_sequences() > 0) {
      // Never stuck: with nothing in flight there is a step, with rows.
      EXPECT_TRUE(bench.Start());
      EXPECT_FALSE(bench.plans_.back().rows.empty());
    }
  };
  for (int i = 0; i < 600 && !::testing::Test::HasFailure(); ++i) act();
  if (::testing::Test::HasFailure()) return;
  bench.RunAll();

  EXPECT_EQ(bench.scheduler_.n_sequences(), 0);
  EXPECT_EQ(bench.scheduler_.blocks()->n_in_use(), 0);
  EXPECT_EQ(bench.worker_->n_blocks_in_use(), 0);
  EXPECT_EQ(bench.worker_->n_sequences(), 0);
  for (const auto& [id, n] : n_wanted) {
    if (aborted.count(id) > 0) {
      EXPECT_EQ(bench.ends_.count(id), 0u);
      continue;
    }
    ASSERT_EQ(bench.ends_.count(id), 1u) << "sequence " << id;
    if (bench.ends_[id].status.ok()) {
      bench.ExpectAnswer(id, n);
    } else {
      bench.ExpectAnswer(id, static_cast<int>(bench.answers_[id].size()));
    }
  }
  *plans = std::move(bench.plans_);
}

TEST(SchedulerProperty, RandomTracesFinishWithTheRightTokensAndNoLeak) {
  const uint32_t first = std::random_device()();
  for (uint32_t i = 0; i < 300 && !HasFailure(); ++i) {
    std::vector<StepPlan> plans;
    // A few traces are the same every time; the others are new.
    RunRandomTrace(i < 50 ? i : first + i, &plans);
  }
}

TEST(SchedulerProperty, SameCallsGiveSamePlans) {
  for (uint32_t seed = 0; seed < 20 && !HasFailure(); ++seed) {
    std::vector<StepPlan> a, b;
    RunRandomTrace(seed, &a);
    RunRandomTrace(seed, &b);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].released_run_ids, b[i].released_run_ids);
      ASSERT_EQ(a[i].rows.size(), b[i].rows.size());
      for (size_t r = 0; r < a[i].rows.size(); ++r) {
        ASSERT_EQ(a[i].rows[r].run_id, b[i].rows[r].run_id);
        ASSERT_EQ(a[i].rows[r].tokens, b[i].rows[r].tokens);
        ASSERT_EQ(a[i].rows[r].new_block_ids, b[i].rows[r].new_block_ids);
      }
    }
  }
}

}  // namespace
}  // namespace tern
