// Random traces against the scheduler and toy workers, with printed seeds.

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/scheduler.h"
#include "coordinator/testing/toy_pipelines.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// Random arrivals, aborts, deadlines, lost pipelines and small pools. The toy
// workers refuse double use of blocks, gaps, repeats and oversized steps, and
// rows planned ahead out of their turn; the
// answers show that every replay presented exactly its token log.
//
// n_drafts_true: grows by the guesses that came true.
// n_refilled:    grows by the tokens that only stages computed that had lost
//                them.
void RunRandomTrace(uint32_t seed, std::vector<StepPlan>* plans,
                    int64_t* n_drafts_true, int64_t* n_refilled) {
  SCOPED_TRACE(absl::StrCat("seed=", seed));
  std::mt19937 random(seed);
  const auto draw = [&random](int low, int high) {
    return low + static_cast<int>(random() % (high - low + 1));
  };
  Scheduler::Options options;
  options.max_step_tokens = draw(1, 40);
  options.max_sequences = draw(1, 8);
  options.max_waiting = draw(1, 30);
  options.max_step_stretch = draw(1, 4);
  options.min_prefill_tokens = draw(1, 16);
  options.prefix_cache = draw(0, 3) > 0;
  options.max_draft_tokens = draw(0, 2) == 0 ? 0 : draw(1, 6);
  options.always_drafts = draw(0, 2) == 0;
  options.turnaround = absl::Milliseconds(draw(0, 3));
  int n_blocks = draw(2, 24);
  const int n_stages = draw(1, 4);
  const int n_pipelines = draw(1, 3);
  ToyPipelines bench(options, n_blocks, n_stages, 0);
  bench.looks_ahead_ = draw(0, 3) > 0;
  for (int p = 0; p < n_pipelines; ++p) bench.StartPipeline(n_blocks, p);
  std::map<int64_t, int> n_wanted;
  std::set<int64_t> aborted;
  absl::Time now = absl::UnixEpoch();
  int64_t next_id = 1;
  bool is_one_missing = false;

  const auto act = [&] {
    const int p = draw(0, n_pipelines - 1);
    switch (draw(0, 9)) {
      case 0:
      case 1: {
        SequenceParameters parameters;
        parameters.sequence_class = draw(0, 2) == 0
                                        ? SequenceClass::kBatch
                                        : SequenceClass::kInteractive;
        parameters.priority = draw(-1, 1);
        parameters.tenant = absl::StrCat("tenant", draw(0, 2));
        if (draw(0, 3) == 0) parameters.sampler.presence_penalty = 1;
        if (draw(0, 3) == 0) parameters.sampler.prompt_logprobs = draw(0, 2);
        if (draw(0, 9) == 0) {
          parameters.deadline = now + absl::Seconds(draw(1, 60));
        }
        // Beginnings of a few texts, and ends of their own.
        std::vector<int32_t> prompt(draw(1, 60));
        const int text = draw(1, 3);
        const int own_from = draw(0, 60);
        for (int i = 0; i < static_cast<int>(prompt.size()); ++i) {
          prompt[i] = (i < own_from ? text * 100 : next_id * 31) + i;
          prompt[i] %= ToyPipelines::kVocab;
        }
        if (draw(0, 1) == 0) {
          for (int32_t& token : prompt) token = draw(0, 2);
        }
        int n_output = draw(1, 30);
        const int64_t id = next_id++;
        if (draw(0, 2) == 0) parameters.stop_token_ids = {1};
        if (bench.Add(id, prompt, n_output, parameters).ok()) {
          const std::vector<int32_t> answer =
              ToyAnswer(prompt, id, n_output, ToyPipelines::kVocab);
          const auto stop = std::find(answer.begin(), answer.end(), 1);
          if (!parameters.stop_token_ids.empty() && stop != answer.end()) {
            n_output = static_cast<int>(stop - answer.begin()) + 1;
          }
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
        if (bench.scheduler_.lane(p) == nullptr) {
          bench.StartPipeline(n_blocks, p);
          is_one_missing = false;
        } else if (draw(0, 9) == 0) {
          std::set<int> lost;
          std::vector<int> n_run;
          for (int stage = 0; stage < n_stages; ++stage) {
            if (draw(0, n_stages) == 0) lost.insert(stage);
            n_run.push_back(draw(0, n_stages));
          }
          bench.ReplaceStages(lost, draw(0, 1) == 0, n_run, p);
        } else if (draw(0, 19) == 0) {
          bench.StopPipeline(p);
          if (draw(0, 3) == 0) n_blocks = draw(2, 24);
          if (n_pipelines > 1 && !is_one_missing && draw(0, 1) == 0) {
            is_one_missing = true;  // for a while
          } else {
            bench.StartPipeline(n_blocks, p);
          }
        }
        break;
      case 4:
        now += absl::Seconds(draw(0, 3));
        bench.Take(bench.scheduler_.ExpireDeadlines(now));
        break;
      case 5:
      case 6:
        bench.Finish(p);
        break;
      default:
        bench.Start(p);
        break;
    }
    int n_in_flight = 0;
    for (int i = 0; i < n_pipelines; ++i) {
      const Lane* lane = bench.scheduler_.lane(i);
      if (lane == nullptr) continue;
      EXPECT_LE(lane->n_running(), options.max_sequences);
      EXPECT_LE(lane->n_in_flight(), n_stages + bench.looks_ahead_);
      n_in_flight += lane->n_in_flight();
    }
    if (n_in_flight == 0 && bench.scheduler_.n_sequences() > 0) {
      // Never stuck: with nothing in flight there is a step, with rows, unless
      // all wait for a larger pipeline.
      bool any_rows = false;
      for (int i = 0; i < n_pipelines; ++i) {
        if (bench.Start(i)) any_rows |= !bench.plans_.back().rows.empty();
      }
      EXPECT_TRUE(any_rows || bench.scheduler_.has_unplaceable());
    }
  };
  for (int i = 0; i < 600 && !::testing::Test::HasFailure(); ++i) act();
  if (::testing::Test::HasFailure()) return;
  for (int p = 0; p < n_pipelines; ++p) {
    if (bench.scheduler_.lane(p) == nullptr) bench.StartPipeline(n_blocks, p);
  }
  bench.RunAll();

  EXPECT_EQ(bench.scheduler_.n_sequences(), 0);
  for (int p = 0; p < n_pipelines; ++p) {
    EXPECT_EQ(bench.scheduler_.lane(p)->blocks().n_in_use(), 0);
    EXPECT_EQ(bench.toy(p).n_blocks_in_use(), 0);
    EXPECT_EQ(bench.toy(p).n_sequences(), 0);
    *n_drafts_true += bench.toy(p).n_drafts_true();
  }
  for (const auto& [id, n] : n_wanted) {
    bench.ExpectScores(id);
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
  *n_refilled += bench.scheduler_.counters().refilled_tokens;
  *plans = std::move(bench.plans_);
}

TEST(SchedulerProperty, RandomTracesFinishWithTheRightTokensAndNoLeak) {
  const uint32_t first = std::random_device()();
  int64_t n_drafts_true = 0, n_refilled = 0;
  for (uint32_t i = 0; i < 300 && !HasFailure(); ++i) {
    std::vector<StepPlan> plans;
    // A few traces are the same every time; the others are new.
    RunRandomTrace(i < 50 ? i : first + i, &plans, &n_drafts_true, &n_refilled);
  }
  EXPECT_GT(n_drafts_true, 100);
  EXPECT_GT(n_refilled, 1000);
}

TEST(SchedulerProperty, SameCallsGiveSamePlans) {
  for (uint32_t seed = 0; seed < 20 && !HasFailure(); ++seed) {
    std::vector<StepPlan> a, b;
    int64_t n_drafts_true = 0, n_refilled = 0;
    RunRandomTrace(seed, &a, &n_drafts_true, &n_refilled);
    RunRandomTrace(seed, &b, &n_drafts_true, &n_refilled);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].released_run_ids, b[i].released_run_ids);
      ASSERT_EQ(a[i].rows.size(), b[i].rows.size());
      for (size_t r = 0; r < a[i].rows.size(); ++r) {
        ASSERT_EQ(a[i].rows[r].run_id, b[i].rows[r].run_id);
        ASSERT_EQ(a[i].rows[r].tokens, b[i].rows[r].tokens);
        ASSERT_EQ(a[i].rows[r].n_drafts, b[i].rows[r].n_drafts);
        ASSERT_EQ(a[i].rows[r].scored_tokens, b[i].rows[r].scored_tokens);
        ASSERT_EQ(a[i].rows[r].new_block_ids, b[i].rows[r].new_block_ids);
      }
    }
  }
}

}  // namespace
}  // namespace tern
