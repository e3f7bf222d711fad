#include "coordinator/stage_cut.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "coordinator/refused_stage.h"
#include "gtest/gtest.h"
#include "model/stage_plan.h"
#include "model/step_times.h"

namespace tern {
namespace {

// A model whose layers take 100 bytes, a KV block of one layer 1 byte.
CutTask Task(int n_layers) {
  CutTask task;
  task.n_layers = n_layers;
  task.hidden_bytes = 10;
  task.kv_block_bytes = 1;
  task.kv_block_size = 1;
  task.kv_blocks_least = 8;
  task.kv_blocks_most = 8;
  task.n_sequences = 8;
  return task;
}

CutWorker Worker(double layer_s, double head_s = 0,
                 int64_t memory = 1'000'000) {
  CutWorker worker;
  worker.times.layer_step_s = layer_s;
  worker.times.head_step_s = head_s;
  worker.memory_bytes = memory;
  worker.layer_bytes = 100;
  worker.head_bytes = 500;
  return worker;
}

std::vector<int> Sizes(const StageCut& cut) {
  std::vector<int> sizes;
  for (const CutStage& stage : cut.stages) {
    sizes.push_back(stage.layer_end - stage.layer_begin);
  }
  return sizes;
}
std::vector<int> Order(const StageCut& cut) {
  std::vector<int> order;
  for (const CutStage& stage : cut.stages) order.push_back(stage.worker);
  return order;
}

TEST(CutStages, EvenWorkersShareEvenly) {
  const std::vector<CutWorker> workers(4, Worker(1));
  const auto cut = CutStages(Task(12), workers);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{3, 3, 3, 3}));
  EXPECT_EQ(Order(*cut), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(cut->stages[2].layer_begin, 6);
  EXPECT_DOUBLE_EQ(cut->forecast.cycle_s, 12);
  EXPECT_DOUBLE_EQ(cut->forecast.tokens_per_second, 8 / 12.0);
}

// 30 layers and a head worth 19 of them: 24.5 each, as near as can be.
TEST(CutStages, TheHeadCountsAsMuchAsItsTime) {
  const std::vector<CutWorker> workers(2, Worker(1, 19));
  const auto cut = CutStages(Task(30), workers);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{25, 5}));
}

TEST(CutStages, AFastWorkerTakesMore) {
  const auto cut =
      CutStages(Task(12), std::vector<CutWorker>{Worker(3), Worker(1)});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{3, 9}));
  EXPECT_DOUBLE_EQ(cut->forecast.cycle_s, 2 * 9);
}

TEST(CutStages, TheHeadGoesToWhoIsGoodAtIt) {
  const auto cut =
      CutStages(Task(12), std::vector<CutWorker>{Worker(1, 2), Worker(1, 20)});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Order(*cut), (std::vector<int>{1, 0}));
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{7, 5}));
}

TEST(CutStages, MemoryLimitsAStage) {
  // Two layers of 100 bytes and 8 KV blocks each.
  const auto cut =
      CutStages(Task(12), std::vector<CutWorker>{Worker(1, 0, 220), Worker(1)});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{2, 10}));
  EXPECT_FALSE(CutStages(Task(12), std::vector<CutWorker>{Worker(1, 0, 220),
                                                          Worker(1, 0, 900)})
                   .has_value());
}

// Where memory holds either a fast cut or many sequences, many win when they
// are worth more.
TEST(CutStages, GivesUpBalanceForMoreSequences) {
  CutTask task = Task(8);
  task.kv_blocks_least = 1;
  task.kv_blocks_most = 80;
  task.context_tokens = 10;
  // With 80 blocks a layer takes 180 bytes: two for the first.
  const auto cut =
      CutStages(task, std::vector<CutWorker>{Worker(1, 0, 440), Worker(1)});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{2, 6}));
  EXPECT_EQ(cut->forecast.n_running, 8);
  EXPECT_EQ(cut->kv_blocks, 80);
}

// A worker behind a link that takes as long as eight layers.
TEST(CutStages, ASlowLinkGoesLast) {
  std::vector<CutWorker> workers(2, Worker(1));
  workers[0].link_s_per_byte = 8.0 / (4 * 10);  // 4 tokens of 10 bytes
  const auto cut = CutStages(Task(4), workers);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Order(*cut), (std::vector<int>{1, 0}));
  EXPECT_DOUBLE_EQ(cut->forecast.cycle_s, 4);
}

// With one sequence stages do not overlap: the fast worker takes all it can.
TEST(CutStages, ALoneSequenceWantsTheShortestRound) {
  CutTask task = Task(10);
  task.n_sequences = 1;
  const auto cut =
      CutStages(task, std::vector<CutWorker>{Worker(3), Worker(1)});
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Order(*cut), (std::vector<int>{1, 0}));
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{9, 1}));
  EXPECT_DOUBLE_EQ(cut->forecast.cycle_s, 12);
}

TEST(CutStages, MoreWorkersThanLayersHaveNoCut) {
  EXPECT_FALSE(
      CutStages(Task(2), std::vector<CutWorker>(3, Worker(1))).has_value());
}

TEST(CutStages, WhoHoldsLayersKeepsThem) {
  std::vector<CutWorker> workers(3, Worker(1));
  // The one in the middle was lost; worker 1 is the new one.
  workers[0].holds = StageRange{8, 12, false, true};
  workers[2].holds = StageRange{0, 4, true, false};
  auto cut = CutStages(Task(12), workers);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Order(*cut), (std::vector<int>{2, 1, 0}));
  EXPECT_EQ(Sizes(*cut), (std::vector<int>{4, 4, 4}));
  // A first stage is found at the front, too.
  workers[2].holds.reset();
  workers[0].holds = StageRange{4, 8, false, false};
  workers[1].holds = StageRange{8, 12, false, true};
  cut = CutStages(Task(12), workers);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(Order(*cut), (std::vector<int>{2, 0, 1}));
}

TEST(CutStages, KeepsLayersAsLongAsThatCostsLittle) {
  std::vector<CutWorker> workers = {Worker(1), Worker(1.04)};
  workers[0].holds = StageRange{0, 50, true, false};
  workers[1].holds = StageRange{50, 100, false, true};
  EXPECT_EQ(Sizes(*CutStages(Task(100), workers)), (std::vector<int>{50, 50}));
  // 60 layers and 40 would be the fastest; 63 is 5 % more than that.
  workers[1].times.layer_step_s = 1.5;
  EXPECT_EQ(Sizes(*CutStages(Task(100), workers)), (std::vector<int>{58, 42}));
}

// Every number of layers for every worker and every last one.
double BestCycle(const CutTask& task, const std::vector<CutWorker>& workers) {
  const int n = static_cast<int>(workers.size());
  double best = std::numeric_limits<double>::infinity();
  for (int head = 0; head < n; ++head) {
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    order.erase(order.begin() + head);
    order.push_back(head);
    std::vector<CutStage> stages;
    const std::function<void(int, int)> place = [&](int i, int begin) {
      if (i == n) {
        if (begin != task.n_layers) return;
        if (KvBlocksThatFit(task, workers, stages) < task.kv_blocks_most) {
          return;
        }
        best = std::min(
            best,
            ForecastCut(task, workers, stages, task.kv_blocks_most).cycle_s);
        return;
      }
      for (int size = 1; begin + size <= task.n_layers; ++size) {
        stages.push_back({order[i], begin, begin + size});
        place(i + 1, begin + size);
        stages.pop_back();
      }
    };
    place(0, 0);
  }
  return best;
}

TEST(CutStages, NoCutIsFaster) {
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    CutTask task = Task(draw(1, 9));
    task.n_sequences = draw(1, 9);
    task.context_tokens = draw(1, 3);
    task.kv_blocks_least = task.kv_blocks_most = draw(1, 30);
    std::vector<CutWorker> workers;
    const int n_workers = draw(1, 4);
    // Half of the time from few values, so that there are ties.
    const int values = draw(0, 1) == 0 ? 3 : 1000;
    for (int i = 0; i < n_workers; ++i) {
      CutWorker worker = Worker(draw(1, values), draw(0, 3 * values),
                                draw(0, 3) == 0 ? draw(100, 1500) : 100'000);
      worker.times.layer_token_s = draw(0, values) / 4.0;
      worker.times.layer_context_s = draw(0, values) / 8.0;
      worker.times.head_row_s = draw(0, values) / 2.0;
      worker.link_latency_s = draw(0, 4) == 0 ? draw(0, 5 * values) : 0;
      worker.link_s_per_byte = draw(0, 4) == 0 ? draw(0, 3 * values) / 20.0 : 0;
      workers.push_back(worker);
    }
    const double best = BestCycle(task, workers);
    const auto cut = CutStages(task, workers);
    ASSERT_EQ(cut.has_value(), best < 1e300);
    if (!cut.has_value()) continue;
    EXPECT_NEAR(cut->forecast.cycle_s, best, 2e-6 * best);
    EXPECT_EQ(cut->stages.front().layer_begin, 0);
    EXPECT_EQ(cut->stages.back().layer_end, task.n_layers);
    EXPECT_GE(KvBlocksThatFit(task, workers, cut->stages),
              task.kv_blocks_least);
    std::vector<int> all(n_workers);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_NEAR(CutRate(task, workers, all), cut->forecast.tokens_per_second,
                1e-8 * cut->forecast.tokens_per_second);
  }
}

// Whoever holds what: within the slack, and never a part nobody can have.
TEST(CutStages, KeepingLayersCostsNoMoreThanTheSlack) {
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    CutTask task = Task(draw(4, 24));
    task.keep_slack = draw(0, 3) * 0.1;
    std::vector<CutWorker> workers;
    const int n_workers = draw(1, 4);
    for (int i = 0; i < n_workers; ++i) {
      workers.push_back(
          Worker(draw(2, 4), draw(0, 9), draw(0, 3) == 0 ? 1500 : 100'000));
    }
    const auto without = CutStages(task, workers);
    for (CutWorker& worker : workers) {
      if (draw(0, 1) == 0) continue;
      const int begin = draw(0, task.n_layers - 1);
      const int end = draw(begin + 1, task.n_layers);
      worker.holds = StageRange{begin, end, begin == 0, end == task.n_layers};
    }
    const auto cut = CutStages(task, workers);
    ASSERT_EQ(cut.has_value(), without.has_value());
    if (!cut.has_value()) continue;
    EXPECT_LE(cut->forecast.cycle_s,
              without->forecast.cycle_s * (1 + task.keep_slack + 1e-9));
    EXPECT_GE(cut->kv_blocks, task.kv_blocks_least);
    EXPECT_EQ(cut->stages.back().layer_end, task.n_layers);
  }
}

// "0:0-4 1:4-8": workers and their layers.
std::string Text(const StageCut& cut) {
  std::string text;
  for (const CutStage& stage : cut.stages) {
    text += (text.empty() ? "" : " ") + std::to_string(stage.worker) + ":" +
            std::to_string(stage.layer_begin) + "-" +
            std::to_string(stage.layer_end);
  }
  return text;
}

RefusedStage Refused(const CutTask& task, int begin, int end,
                     absl::Status why = absl::DataLossError("damaged")) {
  return {{begin, end, begin == 0, end == task.n_layers}, std::move(why)};
}

TEST(CutStages, WorkersSwapWhenOneRefusesItsStage) {
  const CutTask task = Task(8);
  std::vector<CutWorker> workers = {Worker(1, 0), Worker(1, 0)};
  ASSERT_EQ(Text(*CutStages(task, workers)), "0:0-4 1:4-8");
  workers[0].refused = {Refused(task, 0, 4)};
  const auto cut = CutStages(task, workers);
  EXPECT_EQ(Text(*cut), "1:0-4 0:4-8");
  EXPECT_EQ(cut->refused_layers, 0);
  EXPECT_NEAR(CutRate(task, workers, {0, 1}), cut->forecast.tokens_per_second,
              1e-9);
}

TEST(CutStages, ALayerThatHoldsWhatIsRefusedIsNotWorthKeeping) {
  const CutTask task = Task(8);
  std::vector<CutWorker> workers = {Worker(1, 0), Worker(1, 0)};
  workers[0].holds = StageRange{0, 4, true, false};
  workers[0].refused = {Refused(task, 0, 4)};
  EXPECT_EQ(Text(*CutStages(task, workers)), "1:0-4 0:4-8");
}

TEST(CutStages, WhatIsTooLargeForOneIsMadeSmaller) {
  const CutTask task = Task(8);
  std::vector<CutWorker> workers = {Worker(1, 0), Worker(1, 0)};
  workers[0].refused = {
      Refused(task, 0, 4, absl::ResourceExhaustedError("no room"))};
  EXPECT_EQ(Text(*CutStages(task, workers)), "0:0-3 1:3-8");
}

TEST(CutStages, TheLeastIsTakenOfWhatAllRefuse) {
  const CutTask task = Task(8);
  std::vector<CutWorker> workers = {Worker(1, 0), Worker(1, 0)};
  // Both have a damaged tensor in the first layers.
  workers[0].refused = {Refused(task, 0, 4)};
  workers[1].refused = {Refused(task, 0, 2)};
  const auto cut = CutStages(task, workers);
  EXPECT_EQ(Text(*cut), "0:0-2 1:2-8");
  EXPECT_EQ(cut->refused_layers, 2);
  EXPECT_LT(CutRate(task, workers, {0, 1}),
            cut->forecast.tokens_per_second / 1e5);
  // And when there is no other worker, it is tried again.
  const CutTask one_layer = Task(1);
  workers[0].refused = {Refused(one_layer, 0, 1)};
  const auto again = CutStages(one_layer, {workers[0]});
  ASSERT_TRUE(again.has_value());
  EXPECT_GT(again->refused_layers, kSameAgain);
}

// Against all cuts in all orders.
TEST(CutStages, NoCutOfAFewWorkersRefusesLess) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    const CutTask task = Task(draw(3, 7));
    std::vector<CutWorker> workers;
    for (int i = draw(1, 3); i > 0; --i) {
      CutWorker worker =
          Worker(draw(1, 4), draw(0, 4), draw(0, 3) == 0 ? 1500 : 100'000);
      if (draw(0, 2) == 0) worker.holds = StageRange{0, 2, true, false};
      for (int n = draw(0, 2); n > 0; --n) {
        const int begin = draw(0, task.n_layers - 1);
        const int end = draw(begin + 1, task.n_layers);
        worker.refused.push_back(
            draw(0, 3) == 0
                ? Refused(task, begin, end, absl::ResourceExhaustedError(""))
                : Refused(task, begin, end));
      }
      workers.push_back(worker);
    }
    const auto cut = CutStages(task, workers);
    int64_t least = -1;
    std::vector<int> order(workers.size());
    std::iota(order.begin(), order.end(), 0);
    do {
      std::vector<CutStage> stages;
      const std::function<void(int)> try_all = [&](int begin) {
        const size_t place = stages.size();
        if (place == order.size()) {
          if (begin < task.n_layers) return;
          if (KvBlocksThatFit(task, workers, stages) < task.kv_blocks_least) {
            return;
          }
          const int64_t n = RefusedLayers(task, workers, stages);
          if (least < 0 || n < least) least = n;
          return;
        }
        for (int end = begin + 1; end <= task.n_layers; ++end) {
          stages.push_back({order[place], begin, end});
          try_all(end);
          stages.pop_back();
        }
      };
      try_all(0);
    } while (std::next_permutation(order.begin(), order.end()));
    ASSERT_EQ(cut.has_value(), least >= 0);
    if (!cut.has_value()) continue;
    EXPECT_EQ(cut->refused_layers, least);
    EXPECT_EQ(RefusedLayers(task, workers, cut->stages), least);
    EXPECT_GE(KvBlocksThatFit(task, workers, cut->stages),
              task.kv_blocks_least);
  }
}

}  // namespace
}  // namespace tern
