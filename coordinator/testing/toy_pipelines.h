#ifndef COORDINATOR_TESTING_TOY_PIPELINES_H_
#define COORDINATOR_TESTING_TOY_PIPELINES_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/block_manager.h"
#include "coordinator/kept_kv.h"
#include "coordinator/scheduler.h"
#include "coordinator/testing/toy_model.h"
#include "gtest/gtest.h"

namespace tern {

// A scheduler, the toy workers of its pipelines, and what came out. Fails the
// test when a plan breaks the rules.
class ToyPipelines {
 public:
  static constexpr int kVocab = 1000;
  static constexpr int kBlockSize = 4;

  // Ten milliseconds to read the weights, and one for each token.
  static absl::Duration BusyWith(int n_tokens) {
    return absl::Milliseconds(10 + n_tokens);
  }

  ToyPipelines(Scheduler::Options options, int n_blocks, int n_stages,
               int n_pipelines = 1)
      : options_(options), n_stages_(n_stages), scheduler_(options) {
    for (int p = 0; p < n_pipelines; ++p) StartPipeline(n_blocks, p);
  }

  void StartPipeline(int n_blocks, int p = 0) {
    Workers& workers = pipelines_[p];
    workers = Workers();
    for (int stage = 0; stage < n_stages_; ++stage) {
      workers.toys.push_back(NewToy(n_blocks, stage));
    }
    workers.plans.resize(n_stages_);
    Take(scheduler_.StartPipeline(
        p, {n_blocks, kBlockSize, n_stages_, looks_ahead_}));
  }

  // The workers of these stages are replaced; the others keep their blocks. Of
  // the steps in flight stage i has run the first n_run[i], if there are so
  // many; the last stage all of them.
  void ReplaceStages(const std::set<int>& lost, bool keeps_boundary,
                     const std::vector<int>& n_run, int p = 0) {
    Workers& workers = pipelines_[p];
    const int n_blocks = scheduler_.lane(p)->blocks().n_blocks();
    std::vector<char> has_kept;
    for (int stage = 0; stage < n_stages_; ++stage) {
      for (int i = 0; i < n_run[stage]; ++i) RunNext(stage, &workers);
      workers.plans[stage].clear();
      has_kept.push_back(lost.count(stage) == 0);
      if (has_kept.back()) {
        workers.toys[stage]->StartAnew();
      } else {
        workers.toys[stage] = NewToy(n_blocks, stage);
      }
    }
    workers.results.clear();
    workers.run_ids.clear();
    KeptKv kept = {std::vector<KeptKv::Stage>(n_stages_), "", keeps_boundary,
                   *scheduler_.StopPipeline(p)};
    Take(scheduler_.StartPipeline(
        p, {n_blocks, kBlockSize, n_stages_, looks_ahead_},
        RecoverBlocks(std::move(kept), has_kept)));
  }

  void StopPipeline(int p = 0) {
    scheduler_.StopPipeline(p);
    pipelines_[p].results.clear();
    pipelines_[p].run_ids.clear();
    for (std::deque<StepPlan>& plans : pipelines_[p].plans) plans.clear();
  }

  // Queues a prompt of `n_prompt` tokens, different for each id.
  absl::Status Add(int64_t id, int n_prompt, int n_output,
                   SequenceParameters parameters = {}) {
    std::vector<int32_t> prompt(n_prompt);
    for (int i = 0; i < n_prompt; ++i) {
      prompt[i] = static_cast<int32_t>((id * 31 + i) % kVocab);
    }
    return Add(id, prompt, n_output, std::move(parameters));
  }

  absl::Status Add(int64_t id, std::vector<int32_t> prompt, int n_output,
                   SequenceParameters parameters = {}) {
    parameters.prompt = std::move(prompt);
    parameters.max_output_tokens = n_output;
    parameters.sampler.seed = id;
    prompts_[id] = parameters.prompt;
    if (parameters.sampler.prompt_logprobs >= 0) scoring_.insert(id);
    return scheduler_.Add(id, std::move(parameters));
  }

  // Plans and executes a step. False when there is nothing to plan.
  bool Start(int p = 0) {
    if (scheduler_.lane(p) == nullptr) return false;
    std::optional<StepPlan> plan = scheduler_.Schedule(p);
    if (!plan.has_value()) return false;
    Workers& workers = pipelines_[p];
    ExpectInTurn(*plan, workers);
    StepResult result;
    const absl::Status status = workers.toys.back()->Run(*plan, &result);
    EXPECT_TRUE(status.ok()) << status;
    for (int stage = 0; stage + 1 < n_stages_; ++stage) {
      workers.plans[stage].push_back(*plan);
    }
    plans_.push_back(*std::move(plan));
    int n_tokens = 0;
    for (const StepRow& row : plans_.back().rows) {
      n_tokens += row.n_tokens();
    }
    result.busy = BusyWith(n_tokens);
    workers.results.push_back(std::move(result));
    return true;
  }

  // Reports the oldest step in flight.
  bool Finish(int p = 0) {
    std::deque<StepResult>& results = pipelines_[p].results;
    if (results.empty()) return false;
    for (int stage = 0; stage + 1 < n_stages_; ++stage) {
      RunNext(stage, &pipelines_[p]);
    }
    std::vector<SequenceEvent> events;
    const absl::Status status =
        scheduler_.Complete(p, results.front(), &events);
    EXPECT_TRUE(status.ok()) << status;
    results.pop_front();
    pipelines_[p].run_ids.pop_front();
    Take(std::move(events));
    return true;
  }

  // One step of each pipeline, from start to end.
  void Step() {
    for (const auto& [p, workers] : pipelines_) Start(p);
    for (const auto& [p, workers] : pipelines_) Finish(p);
  }

  // Runs until nothing is left to do, with as much in flight as allowed.
  void RunAll() {
    bool any = true;
    while (any) {
      any = false;
      for (const auto& [p, workers] : pipelines_) {
        while (Start(p)) {
        }
      }
      for (const auto& [p, workers] : pipelines_) any = Finish(p) || any;
    }
  }

  void ExpectAnswer(int64_t id, int n) {
    EXPECT_EQ(answers_[id], ToyAnswer(prompts_[id], id, n, kVocab))
        << "sequence " << id;
  }

  // That the prompt was scored as far as it was asked for and the sequence
  // went well, or up to anywhere.
  void ExpectScores(int64_t id) {
    std::vector<float> expected;
    if (scoring_.count(id) > 0) expected = ToyScores(prompts_[id]);
    if (ends_.count(id) == 0 || !ends_[id].status.ok()) {
      ASSERT_LE(scores_[id].size(), expected.size());
      expected.resize(scores_[id].size());
    }
    EXPECT_EQ(scores_[id], expected) << "sequence " << id;
  }

  void Take(std::vector<SequenceEvent> events) {
    for (SequenceEvent& event : events) {
      for (const TokenLogprobs& logprobs : event.prompt_logprobs) {
        EXPECT_TRUE(answers_[event.id].empty()) << "sequence " << event.id;
        scores_[event.id].push_back(logprobs.logprob);
      }
      if (event.token >= 0) answers_[event.id].push_back(event.token);
      if (event.ended) ends_[event.id] = std::move(event);
    }
  }

  // The last stage.
  ToyWorker& toy(int p = 0) { return *pipelines_[p].toys.back(); }
  std::deque<StepResult>& results(int p = 0) { return pipelines_[p].results; }

  struct Workers {
    std::vector<std::unique_ptr<ToyWorker>> toys;  // by stage
    // That earlier stages than the last still have to run.
    std::vector<std::deque<StepPlan>> plans;
    // Of the steps in flight.
    std::deque<StepResult> results;
    std::deque<std::set<int64_t>> run_ids;  // that have rows in them
  };

  std::unique_ptr<ToyWorker> NewToy(int n_blocks, int stage) const {
    return std::make_unique<ToyWorker>(n_blocks, kBlockSize,
                                       options_.max_step_tokens, kVocab, stage);
  }

  static void RunNext(int stage, Workers* workers) {
    std::deque<StepPlan>& plans = workers->plans[stage];
    if (plans.empty()) return;
    StepResult result;
    const absl::Status status =
        workers->toys[stage]->Run(plans.front(), &result);
    EXPECT_TRUE(status.ok()) << "stage " << stage << ": " << status;
    plans.pop_front();
  }

  // A sequence is in two steps in flight at most, the older of which is the
  // oldest of all; and only there is a token to come that a row may take.
  static void ExpectInTurn(const StepPlan& plan, Workers& workers) {
    std::set<int64_t> run_ids;
    for (const StepRow& row : plan.rows) {
      run_ids.insert(row.run_id);
      for (size_t i = 0; i < workers.run_ids.size(); ++i) {
        EXPECT_TRUE(i == 0 || workers.run_ids[i].count(row.run_id) == 0)
            << "step " << plan.step_id << ", run " << row.run_id;
      }
      if (row.sampled_in_step_id == 0) continue;
      EXPECT_FALSE(workers.results.empty());
      if (workers.results.empty()) continue;
      EXPECT_EQ(row.sampled_in_step_id, workers.results.front().step_id);
      EXPECT_EQ(workers.run_ids.front().count(row.run_id), 1u);
    }
    workers.run_ids.push_back(std::move(run_ids));
  }

  const Scheduler::Options options_;
  const int n_stages_;
  bool looks_ahead_ = false;  // of pipelines that start from now on
  Scheduler scheduler_;
  std::map<int, Workers> pipelines_;
  std::vector<StepPlan> plans_;
  std::map<int64_t, std::vector<int32_t>> prompts_;
  std::map<int64_t, std::vector<int32_t>> answers_;
  std::set<int64_t> scoring_;  // whose prompts are to be scored
  std::map<int64_t, std::vector<float>> scores_;
  std::map<int64_t, SequenceEvent> ends_;
};

}  // namespace tern

#endif  // COORDINATOR_TESTING_TOY_PIPELINES_H_
