#include "coordinator/scheduler.h"

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/testing/toy_model.h"
#include "coordinator/testing/toy_pipelines.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr int kVocab = ToyPipelines::kVocab;
constexpr int kBlockSize = ToyPipelines::kBlockSize;

using Bench = ToyPipelines;
constexpr auto BusyWith = ToyPipelines::BusyWith;

std::vector<int32_t> Text(int n, int first = 0) {
  std::vector<int32_t> text(n);
  for (int i = 0; i < n; ++i) text[i] = (first + i) % kVocab;
  return text;
}

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
  EXPECT_EQ(bench.toy().n_blocks_in_use(), 0);
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
  EXPECT_FALSE(scheduler.HasRoomFor(parameters, 2));
  const absl::Status refused = scheduler.Add(20, parameters, 2);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(scheduler.n_sequences(), 2);
  EXPECT_TRUE(scheduler.Add(30, parameters, 1).ok());

  scheduler.StartPipeline(0, {8, kBlockSize, 1, false});
  const std::optional<StepPlan> plan = scheduler.Schedule(0);
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
  bench.StopPipeline();
  bench.StartPipeline(8);
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
  scheduler.StartPipeline(0, {8, kBlockSize, 1, false});
  SequenceParameters parameters;
  parameters.prompt = {1, 2};
  parameters.max_output_tokens = 2;
  parameters.sampler.logprobs = 0;
  ASSERT_TRUE(scheduler.Add(1, parameters).ok());
  const std::optional<StepPlan> plan = scheduler.Schedule(0);
  ASSERT_TRUE(plan.has_value());
  StepResult result;
  result.step_id = plan->step_id;
  result.sampled.push_back({plan->rows[0].run_id, 2, 3, {}, {}});
  std::vector<SequenceEvent> events;
  EXPECT_TRUE(absl::IsInternal(scheduler.Complete(0, result, &events)));
  result.sampled[0].logprobs = TokenLogprobs{-0.5f, {}};
  EXPECT_TRUE(scheduler.Complete(0, result, &events).ok());
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

TEST(Scheduler, PromptsStretchDecodingStepsOnlySoFar) {
  Scheduler::Options options = Options(512, 8);
  options.max_step_stretch = 2;
  Bench bench(options, 1000, 1);
  for (int id = 1; id <= 4; ++id) ASSERT_TRUE(bench.Add(id, 2, 300).ok());
  for (int i = 0; i < 20; ++i) bench.Step();
  ASSERT_TRUE(bench.Add(9, 1500, 1).ok());
  size_t n_steps = 0;
  while (bench.answers_[9].empty() && n_steps < 300) {
    bench.Step();
    ++n_steps;
    int n_tokens = 0;
    for (const StepRow& row : bench.plans_.back().rows) {
      n_tokens += row.n_tokens();
    }
    EXPECT_LE(BusyWith(n_tokens), 2 * BusyWith(4)) << "step " << n_steps;
  }
  // What fits is used: 14 tokens beside four, after a few steps of learning.
  EXPECT_LE(n_steps, 1500 / 14 + 20);
  bench.RunAll();
  for (int id = 1; id <= 4; ++id) bench.ExpectAnswer(id, 300);
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
  EXPECT_GT(bench.scheduler_.counters().preemptions, 0);
  bench.ExpectAnswer(1, 28);
  bench.ExpectAnswer(2, 28);
  EXPECT_EQ(bench.toy().n_blocks_in_use(), 0);
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

TEST(Scheduler, LimitsThePromptTokensThatWait) {
  Scheduler::Options options = Options(64, 1);
  options.max_waiting_tokens = 100;
  Bench bench(options, 200, 1);
  ASSERT_TRUE(bench.Add(1, Text(60), 30).ok());
  bench.Step();  // It runs, and its prompt is known.
  ASSERT_TRUE(bench.Add(2, 300, 1).ok()) << "alone any may wait";
  const absl::Status refused = bench.Add(3, 10, 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("300 tokens"), absl::string_view::npos)
      << refused;
  EXPECT_TRUE(bench.scheduler_.Abort(2));
  ASSERT_TRUE(bench.Add(4, 90, 1).ok());
  EXPECT_FALSE(bench.Add(5, 11, 1).ok());
  EXPECT_TRUE(bench.Add(6, 10, 1).ok());
  EXPECT_TRUE(bench.scheduler_.Abort(6));
  // 56 of these are cached.
  EXPECT_TRUE(bench.Add(7, Text(66), 1).ok());
}

TEST(Scheduler, RefusesAtOnceWhatCannotMeetItsDeadline) {
  Bench bench(Options(64, 4), 200, 1);
  const absl::Time now = absl::UnixEpoch();
  const auto add = [&](int64_t id, int n_prompt, absl::Duration timeout) {
    SequenceParameters parameters;
    parameters.prompt = Text(n_prompt, static_cast<int>(id) * 100);
    parameters.max_output_tokens = 1;
    parameters.deadline = now + timeout;
    return bench.scheduler_.Add(id, parameters, 1, now);
  };
  // Nothing has run yet: who knows.
  ASSERT_TRUE(add(1, 128, absl::Milliseconds(1)).ok());
  bench.RunAll();
  // 64 tokens take 74 ms.
  SequenceParameters other;
  other.prompt = Text(128, 500);
  EXPECT_EQ(bench.scheduler_.ExpectedWait(other), absl::Milliseconds(148));
  EXPECT_TRUE(add(2, 128, absl::Milliseconds(150)).ok());
  const absl::Status refused = add(3, 128, absl::Milliseconds(290));
  EXPECT_EQ(refused.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(refused.message().find("296ms"), absl::string_view::npos)
      << refused;
  EXPECT_TRUE(add(4, 128, absl::Milliseconds(300)).ok());
  // What is cached is not computed.
  EXPECT_TRUE(add(1, 128, absl::Milliseconds(310)).ok());
}

TEST(Scheduler, TellsIdleWorkersToFreeAnAbortedSequence) {
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 4, 20).ok());
  bench.Start();
  EXPECT_TRUE(bench.scheduler_.Abort(1));
  EXPECT_FALSE(bench.scheduler_.Abort(1));
  bench.Finish();
  EXPECT_TRUE(bench.answers_.empty());
  EXPECT_EQ(bench.toy().n_sequences(), 1);
  ASSERT_TRUE(bench.Start());
  EXPECT_TRUE(bench.plans_.back().rows.empty());
  EXPECT_EQ(bench.toy().n_sequences(), 0);
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
  bench.results()[0].sampled[0].status = absl::InternalError("NaN in logits");
  bench.RunAll();
  EXPECT_EQ(bench.ends_[1].status.code(), absl::StatusCode::kInternal);
  bench.ExpectAnswer(2, 2);
}

TEST(Scheduler, RefusesAResultThatDoesNotAnswerTheStep) {
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, 4, 2).ok());
  bench.Start();
  std::vector<SequenceEvent> events;
  StepResult wrong = bench.results().front();
  wrong.step_id = 2;
  EXPECT_FALSE(bench.scheduler_.Complete(0, wrong, &events).ok());
  wrong = bench.results().front();
  wrong.sampled[0].position = 5;
  EXPECT_FALSE(bench.scheduler_.Complete(0, wrong, &events).ok());
  wrong.sampled.clear();
  EXPECT_FALSE(bench.scheduler_.Complete(0, wrong, &events).ok());
  wrong = bench.results().front();
  wrong.sampled.push_back(wrong.sampled[0]);
  EXPECT_FALSE(bench.scheduler_.Complete(0, wrong, &events).ok());
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
  bench.StopPipeline();
  EXPECT_FALSE(bench.Start());
  bench.StartPipeline(16);
  bench.RunAll();
  for (int id = 1; id <= 3; ++id) bench.ExpectAnswer(id, 9);
}

TEST(Scheduler, EndsWhatDoesNotFitTheNextPipeline) {
  Bench bench(Options(8, 4), 16, 1);
  ASSERT_TRUE(bench.Add(1, 20, 20).ok());
  ASSERT_TRUE(bench.Add(2, 4, 4).ok());
  bench.Start();
  bench.StopPipeline();
  bench.StartPipeline(4);
  EXPECT_EQ(bench.ends_[1].status.code(), absl::StatusCode::kResourceExhausted);
  bench.RunAll();
  bench.ExpectAnswer(2, 4);
}

TEST(SchedulerPrefix, LaterPromptComputesOnlyWhatIsNew) {
  Bench bench(Options(64, 4), 32, 1);
  ASSERT_TRUE(bench.Add(1, Text(22), 3).ok());
  bench.RunAll();
  EXPECT_EQ(bench.toy().n_computed(), 22 + 2);
  EXPECT_EQ(bench.ends_[1].n_prompt_cached, 0);
  std::vector<int32_t> longer = Text(30);
  longer[25] = 999;
  ASSERT_TRUE(bench.Add(2, longer, 3).ok());
  bench.RunAll();
  // Five whole blocks of four.
  EXPECT_EQ(bench.toy().n_taken_over(), 20);
  EXPECT_EQ(bench.toy().n_computed(), 22 + 2 + 10 + 2);
  EXPECT_EQ(bench.ends_[2].n_prompt_cached, 20);
  bench.ExpectAnswer(2, 3);
  EXPECT_EQ(bench.scheduler_.counters().found_tokens, 20);
}

TEST(SchedulerPrefix, AnswersAreRememberedToo) {
  Bench bench(Options(64, 4), 32, 1);
  ASSERT_TRUE(bench.Add(1, Text(6), 11).ok());
  bench.RunAll();
  std::vector<int32_t> next_turn = Text(6);
  next_turn.insert(next_turn.end(), bench.answers_[1].begin(),
                   bench.answers_[1].end());
  next_turn.push_back(7);
  ASSERT_TRUE(bench.Add(2, next_turn, 2).ok());
  bench.RunAll();
  EXPECT_EQ(bench.toy().n_taken_over(), 16);  // the last token has no keys
  bench.ExpectAnswer(2, 2);
}

TEST(SchedulerPrefix, OneTokenAtLeastIsComputed) {
  Bench bench(Options(64, 4), 32, 1);
  ASSERT_TRUE(bench.Add(1, Text(8), 1).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(2, Text(8), 1).ok());
  bench.RunAll();
  EXPECT_EQ(bench.toy().n_taken_over(), 4);
  bench.ExpectAnswer(2, 1);
}

TEST(SchedulerPrefix, SamplesOfOnePromptShareItAtOnce) {
  Bench bench(Options(16, 8), 64, 1);
  SequenceParameters parameters;
  parameters.prompt = Text(42);
  parameters.max_output_tokens = 2;
  for (int id = 1; id <= 6; ++id) bench.prompts_[id] = parameters.prompt;
  ASSERT_TRUE(bench.scheduler_.Add(1, parameters, 6).ok());
  bench.RunAll();
  // The first computes 42, the others what is beyond ten blocks of four.
  EXPECT_EQ(bench.toy().n_computed(), 42 + 5 * 2 + 6);
  EXPECT_EQ(bench.ends_.size(), 6u);
}

TEST(SchedulerPrefix, TenantsShareNothing) {
  Bench bench(Options(64, 4), 32, 1);
  SequenceParameters mine, yours;
  mine.tenant = "me";
  yours.tenant = "you";
  ASSERT_TRUE(bench.Add(1, Text(20), 1, mine).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(2, Text(20), 1, yours).ok());
  bench.RunAll();
  EXPECT_EQ(bench.toy().n_taken_over(), 0);
  ASSERT_TRUE(bench.Add(3, Text(20), 1, mine).ok());
  bench.RunAll();
  EXPECT_EQ(bench.toy().n_taken_over(), 16);
}

TEST(SchedulerPrefix, ForgetsTheLeastRecentlyUsedTextFromItsEnd) {
  Bench bench(Options(64, 4), 10, 1);
  ASSERT_TRUE(bench.Add(1, Text(16, 0), 1).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(2, Text(16, 100), 1).ok());
  bench.RunAll();
  // Takes the two empty blocks and the last two of the first text.
  ASSERT_TRUE(bench.Add(3, Text(16, 200), 1).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(4, Text(16, 0), 1).ok());
  bench.RunAll();
  EXPECT_EQ(bench.ends_[4].n_prompt_cached, 8);
  ASSERT_TRUE(bench.Add(5, Text(16, 200), 1).ok());
  bench.RunAll();
  EXPECT_EQ(bench.ends_[5].n_prompt_cached, 12);
}

TEST(SchedulerPrefix, AReplayTakesOverWhatItLeft) {
  // Two sequences that fit one by one, not together.
  Bench bench(Options(32, 4), 8, 1);
  ASSERT_TRUE(bench.Add(1, Text(4), 26).ok());
  ASSERT_TRUE(bench.Add(2, Text(4, 500), 26).ok());
  bench.RunAll();
  EXPECT_GT(bench.scheduler_.counters().preemptions, 0);
  EXPECT_EQ(bench.ends_[2].n_prompt_cached, 0) << "of the first run alone";
  bench.ExpectAnswer(1, 26);
  bench.ExpectAnswer(2, 26);
}

TEST(SchedulerPrefix, PenaltiesAreToldTheTokensTakenOver) {
  Bench bench(Options(64, 4), 32, 1);
  SequenceParameters parameters;
  parameters.sampler.presence_penalty = 1;
  ASSERT_TRUE(bench.Add(1, Text(10), 1, parameters).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(2, Text(10), 1, parameters).ok());
  ASSERT_TRUE(bench.Start());
  const StepRow& row = bench.plans_.back().rows.at(0);
  EXPECT_EQ(row.taken_over_tokens, Text(8));
  EXPECT_EQ(row.position, 8);
}

SequenceParameters Scoring(int n_alternatives = 0) {
  SequenceParameters parameters;
  parameters.sampler.prompt_logprobs = n_alternatives;
  return parameters;
}

// Lengths of the rows and how many tokens each scores.
std::vector<std::pair<int, int>> ScoringRows(const Bench& bench,
                                             size_t first_plan) {
  std::vector<std::pair<int, int>> rows;
  for (size_t i = first_plan; i < bench.plans_.size(); ++i) {
    for (const StepRow& row : bench.plans_[i].rows) {
      rows.emplace_back(row.n_tokens(), row.scored_tokens.size());
    }
  }
  return rows;
}

TEST(SchedulerScores, APromptIsScoredPastTheCacheAndRemembered) {
  Bench bench(Options(16, 4), 32, 1);
  ASSERT_TRUE(bench.Add(1, Text(40), 1).ok());
  bench.RunAll();
  SequenceParameters parameters = Scoring();
  parameters.prompt = Text(40);
  const absl::Duration wait = bench.scheduler_.ExpectedWait(parameters);
  parameters.sampler.prompt_logprobs = -1;
  EXPECT_GT(wait, bench.scheduler_.ExpectedWait(parameters));
  const size_t n_before = bench.plans_.size();
  ASSERT_TRUE(bench.Add(2, Text(40), 3, Scoring(2)).ok());
  bench.RunAll();
  EXPECT_EQ(ScoringRows(bench, n_before),
            (std::vector<std::pair<int, int>>{
                {16, 16}, {16, 16}, {8, 7}, {1, 0}, {1, 0}}));
  EXPECT_EQ(bench.toy().n_taken_over(), 0);
  EXPECT_EQ(bench.ends_[2].n_prompt_cached, 0);
  bench.ExpectAnswer(2, 3);
  bench.ExpectScores(2);
  ASSERT_EQ(bench.scores_[2].size(), 39u);

  // What it computed first, others find.
  ASSERT_TRUE(bench.Add(3, Text(30, 500), 1, Scoring()).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(4, Text(30, 500), 1).ok());
  bench.RunAll();
  EXPECT_EQ(bench.ends_[4].n_prompt_cached, 28);
  bench.ExpectScores(3);
  bench.ExpectScores(4);

  // One token has nothing before it.
  ASSERT_TRUE(bench.Add(5, Text(1), 1, Scoring()).ok());
  bench.RunAll();
  EXPECT_EQ(bench.ends_.count(5), 1u);
  bench.ExpectScores(5);
}

TEST(SchedulerScores, OneOfSeveralSamplesScoresTheirPrompt) {
  Scheduler scheduler(Options(64, 4));
  scheduler.StartPipeline(0, {32, kBlockSize, 1, false});
  SequenceParameters parameters = Scoring(5);
  parameters.prompt = Text(20);
  ASSERT_TRUE(scheduler.Add(1, parameters, 3).ok());
  std::optional<StepPlan> plan = scheduler.Schedule(0);
  ASSERT_TRUE(plan.has_value());
  ASSERT_EQ(plan->rows.size(), 1u) << "the others wait for its blocks";
  EXPECT_EQ(plan->rows[0].scored_tokens, Text(19, 1));
  EXPECT_EQ(plan->new_sequences[0].sampler.prompt_logprobs, 5);
  ToyWorker toy(32, kBlockSize, 64, kVocab);
  StepResult result;
  ASSERT_TRUE(toy.Run(*plan, &result).ok());
  std::vector<SequenceEvent> events;
  ASSERT_TRUE(scheduler.Complete(0, result, &events).ok());
  plan = scheduler.Schedule(0);
  ASSERT_TRUE(plan.has_value());
  ASSERT_EQ(plan->rows.size(), 2u);
  for (const StepRow& row : plan->rows) {
    EXPECT_EQ(row.n_taken_over_blocks, 4);
    EXPECT_TRUE(row.scored_tokens.empty());
  }
}

TEST(SchedulerScores, AReplayScoresWhatWasNotReported) {
  Bench bench(Options(16, 4), 16, 1);
  ASSERT_TRUE(bench.Add(1, Text(44), 2, Scoring()).ok());
  bench.Start();
  bench.Finish();
  bench.Start();  // lost in flight
  bench.StopPipeline();
  const size_t n_before = bench.plans_.size();
  bench.StartPipeline(16);
  bench.RunAll();
  EXPECT_EQ(
      ScoringRows(bench, n_before),
      (std::vector<std::pair<int, int>>{{16, 0}, {16, 16}, {12, 11}, {1, 0}}));
  bench.ExpectAnswer(1, 2);
  bench.ExpectScores(1);
}

TEST(SchedulerScores, APreemptedOneTakesOverWhatItHasScored) {
  Bench bench(Options(16, 1), 32, 1);
  SequenceParameters batch = Scoring();
  batch.sequence_class = SequenceClass::kBatch;
  ASSERT_TRUE(bench.Add(1, Text(44), 2, batch).ok());
  bench.Start();
  bench.Finish();
  bench.Start();
  // Takes its place while its second row is in flight, which counts.
  ASSERT_TRUE(bench.Add(2, 4, 3).ok());
  bench.Finish();
  const size_t n_before = bench.plans_.size();
  bench.RunAll();
  EXPECT_EQ(bench.scheduler_.counters().preemptions, 1);
  EXPECT_EQ(bench.toy().n_taken_over(), 32);
  EXPECT_EQ(ScoringRows(bench, n_before),
            (std::vector<std::pair<int, int>>{
                {4, 0}, {1, 0}, {1, 0}, {12, 11}, {1, 0}}));
  bench.ExpectAnswer(1, 2);
  bench.ExpectScores(1);
}

TEST(SchedulerScores, AFailedRowEndsItsSequenceOnly) {
  Bench bench(Options(16, 4), 32, 1);
  ASSERT_TRUE(bench.Add(1, 24, 2, Scoring()).ok());
  ASSERT_TRUE(bench.Add(2, 2, 2, Scoring()).ok());
  bench.Start();
  ScoredRow& scored = bench.results()[0].scored.at(0);
  scored.status = absl::DataLossError("NaN in logits");
  scored.tokens.clear();
  bench.RunAll();
  EXPECT_TRUE(absl::IsDataLoss(bench.ends_[1].status));
  bench.ExpectAnswer(2, 2);
  bench.ExpectScores(2);
  EXPECT_EQ(bench.toy().n_sequences(), 0);
}

TEST(SchedulerScores, WhatWasNotScoredAsAskedIsABrokenWorkers) {
  Bench bench(Options(16, 4), 32, 1);
  ASSERT_TRUE(bench.Add(1, 10, 2, Scoring()).ok());
  bench.Start();
  const StepResult right = bench.results().front();
  ASSERT_EQ(right.scored.size(), 1u);
  std::vector<SequenceEvent> events;
  const auto is_refused = [&](const StepResult& wrong) {
    return absl::IsInternal(bench.scheduler_.Complete(0, wrong, &events));
  };
  StepResult wrong = right;
  wrong.scored.clear();
  EXPECT_TRUE(is_refused(wrong));
  wrong.scored = {right.scored[0], right.scored[0]};
  EXPECT_TRUE(is_refused(wrong));
  wrong = right;
  wrong.scored[0].tokens.pop_back();
  EXPECT_TRUE(is_refused(wrong));
  wrong = right;
  ++wrong.scored[0].position;
  EXPECT_TRUE(is_refused(wrong));
  wrong = right;
  ++wrong.scored[0].run_id;
  EXPECT_TRUE(is_refused(wrong));
  EXPECT_TRUE(events.empty());
  bench.RunAll();
  bench.ExpectAnswer(1, 2);
  bench.ExpectScores(1);
}

TEST(SchedulerPipelines, SpreadsSequencesEvenly) {
  Bench bench(Options(64, 8), 100, 1, 2);
  for (int id = 1; id <= 8; ++id) ASSERT_TRUE(bench.Add(id, 6, 4).ok());
  bench.Start(0);
  EXPECT_EQ(bench.scheduler_.lane(0)->n_running(), 4);
  EXPECT_EQ(bench.scheduler_.lane(1)->n_running(), 4);
  bench.RunAll();
  for (int id = 1; id <= 8; ++id) bench.ExpectAnswer(id, 4);
}

TEST(SchedulerPipelines, GoesWhereItsPrefixIs) {
  Bench bench(Options(64, 8), 100, 1, 2);
  ASSERT_TRUE(bench.Add(1, Text(30, 0), 2).ok());
  ASSERT_TRUE(bench.Add(2, Text(30, 300), 2).ok());
  bench.RunAll();
  ASSERT_TRUE(bench.Add(3, Text(30, 300), 2).ok());
  ASSERT_TRUE(bench.Add(4, Text(30, 0), 2).ok());
  bench.RunAll();
  EXPECT_EQ(bench.ends_[3].n_prompt_cached, 28);
  EXPECT_EQ(bench.ends_[4].n_prompt_cached, 28);
}

TEST(SchedulerPipelines, WhatRanOnALostOneGoesOnElsewhere) {
  Bench bench(Options(64, 8), 100, 2, 2);
  for (int id = 1; id <= 6; ++id) ASSERT_TRUE(bench.Add(id, 6, 20).ok());
  for (int i = 0; i < 5; ++i) bench.Step();
  bench.Start(0);
  bench.StopPipeline(0);
  EXPECT_EQ(bench.scheduler_.lane(0), nullptr);
  bench.RunAll();
  for (int id = 1; id <= 6; ++id) bench.ExpectAnswer(id, 20);
  EXPECT_EQ(bench.scheduler_.n_sequences(), 0);
}

// Streams that stand still take more of a step than new prompts may.
TEST(SchedulerPipelines, WhatIsInterruptedIsNotThrottled) {
  Scheduler::Options options = Options(512, 8);
  options.max_step_stretch = 1;
  Bench bench(options, 1000, 1, 2);
  for (int id = 1; id <= 2; ++id) ASSERT_TRUE(bench.Add(id, 200, 100).ok());
  while (bench.answers_[1].size() < 20 || bench.answers_[2].size() < 20) {
    bench.Step();
  }
  const int lost = bench.scheduler_.Find(1)->pipeline;
  bench.StopPipeline(lost);
  const size_t n_before = bench.answers_[1].size();
  const size_t n_plans_before = bench.plans_.size();
  while (bench.answers_[1].size() == n_before) bench.Step();
  EXPECT_LE(bench.plans_.size() - n_plans_before, 2u);
  // A new one comes in small pieces.
  ASSERT_TRUE(bench.Add(3, 200, 1).ok());
  bench.Step();
  EXPECT_TRUE(bench.answers_[3].empty());
  bench.RunAll();
  for (int id = 1; id <= 2; ++id) bench.ExpectAnswer(id, 100);
}

TEST(SchedulerPipelines, WhatFitsTheLostOneAloneWaitsAside) {
  Bench bench(Options(64, 8), 4, 1, 1);
  bench.StartPipeline(40, 1);
  ASSERT_TRUE(bench.Add(1, 40, 40).ok());
  bench.Step();
  bench.StopPipeline(1);
  ASSERT_TRUE(bench.Add(2, 4, 4).ok());
  bench.RunAll();
  bench.ExpectAnswer(2, 4);  // not held up
  EXPECT_TRUE(bench.scheduler_.has_unplaceable());
  EXPECT_EQ(bench.scheduler_.n_waiting(), 1);
  bench.StartPipeline(40, 1);
  bench.RunAll();
  bench.ExpectAnswer(1, 40);

  ASSERT_TRUE(bench.Add(3, 40, 40).ok());
  bench.StopPipeline(1);
  bench.RunAll();
  bench.Take(bench.scheduler_.EndUnplaceable());
  EXPECT_EQ(bench.ends_[3].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(bench.scheduler_.n_sequences(), 0);
}

// How many steps pass until sequence `id` has its first token.
int StepsUntilFirstToken(Bench* bench, int64_t id) {
  for (int n = 1; n < 1000; ++n) {
    bench->Step();
    if (!bench->answers_[id].empty()) return n;
  }
  return -1;
}

TEST(SchedulerFairness, OneRequestIsNotHeldUpByAnothersHundred) {
  for (const int n_prompt : {3, 50}) {
    SequenceParameters greedy, modest;
    greedy.tenant = "greedy";
    modest.tenant = "modest";
    Bench alone(Options(32, 8), 200, 1);
    ASSERT_TRUE(alone.Add(1000, n_prompt, 5, modest).ok());
    const int n_alone = StepsUntilFirstToken(&alone, 1000);

    Bench bench(Options(32, 8), 200, 1);
    for (int id = 1; id <= 100; ++id) {
      ASSERT_TRUE(bench.Add(id, n_prompt, 40, greedy).ok());
    }
    for (int i = 0; i < 10; ++i) bench.Step();
    ASSERT_EQ(bench.scheduler_.n_running(), 8);
    ASSERT_TRUE(bench.Add(1000, n_prompt, 5, modest).ok());
    EXPECT_LE(StepsUntilFirstToken(&bench, 1000), n_alone + 2)
        << "prompts of " << n_prompt << " tokens";
    bench.RunAll();
    for (int id = 1; id <= 100; ++id) bench.ExpectAnswer(id, 40);
    bench.ExpectAnswer(1000, 5);
  }
}

TEST(SchedulerFairness, TwoBusyTenantsGetEvenShares) {
  SequenceParameters a, b;
  a.tenant = "a";
  b.tenant = "b";
  Bench bench(Options(32, 8), 400, 1);
  for (int id = 1; id <= 60; ++id) ASSERT_TRUE(bench.Add(id, 4, 20, a).ok());
  for (int id = 61; id <= 80; ++id) ASSERT_TRUE(bench.Add(id, 4, 20, b).ok());
  for (int i = 0; i < 60; ++i) bench.Step();
  int n_a = 0, n_b = 0;
  for (const auto& [id, tokens] : bench.answers_) {
    (id <= 60 ? n_a : n_b) += static_cast<int>(tokens.size());
  }
  EXPECT_GT(n_b, 100);
  EXPECT_NEAR(n_a, n_b, 0.2 * n_b);
}

}  // namespace
}  // namespace tern
