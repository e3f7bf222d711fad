#include "coordinator/placement.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "coordinator/cluster_view.h"
#include "coordinator/refused_stage.h"
#include "gtest/gtest.h"
#include "model/model_config.h"
#include "model/stage_plan.h"
#include "model/step_times.h"

namespace tern {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 8;
  config.hidden_size = 256;
  config.ffn_size = 512;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 64;
  config.vocab_size = 1000;
  config.context_length = 160;
  return config;
}

class PlacementTest : public ::testing::Test {
 protected:
  Worker& AddWorker(const std::string& id, int64_t memory_bytes,
                    double layer_s = 0) {
    Worker worker;
    worker.registration.worker_id = id;
    worker.registration.address = id + ":1";
    worker.registration.memory_bytes = memory_bytes;
    worker.registration.step_times.layer_step_s = layer_s;
    workers_.push_back(worker);
    return workers_.back();
  }
  std::vector<PlacementCandidate> Candidates() const {
    std::vector<PlacementCandidate> candidates;
    for (const Worker& worker : workers_) {
      const auto it = holds_.find(worker.registration.worker_id);
      candidates.push_back({&worker, it == holds_.end()
                                         ? absl::optional<StageRange>()
                                         : it->second});
    }
    return candidates;
  }
  Placements PlaceAll() const {
    return PlacePipelines(Config(), options_, Candidates());
  }
  Placement Place() const {
    const Placements placements = PlaceAll();
    EXPECT_FALSE(placements.pipelines.empty()) << placements.why_none;
    return placements.pipelines.empty() ? Placement() : placements.pipelines[0];
  }
  absl::Status WhyNone() const {
    const Placements placements = PlaceAll();
    EXPECT_EQ(placements.pipelines.empty(), !placements.why_none.ok());
    return placements.why_none;
  }
  // "a:0-4 b:4-8" for each pipeline.
  std::vector<std::string> Placed() const {
    std::vector<std::string> all;
    for (const Placement& placement : PlaceAll().pipelines) {
      std::string& text = all.emplace_back();
      for (const PlacedStage& stage : placement.stages) {
        absl::StrAppend(&text, text.empty() ? "" : " ", stage.worker_id, ":",
                        stage.range.layer_begin, "-", stage.range.layer_end);
      }
    }
    return all;
  }
  // Memory for the head, so many layers, and a KV cache of eight contexts.
  static int64_t MemoryFor(int n_layers) {
    const StageCost cost =
        CostOf(Config(), {0, n_layers, false, true}, true, 0, 16);
    return (cost.weight_bytes + 80 * cost.kv_block_bytes + 1000) * 10 / 9;
  }

  PlacementOptions options_;
  std::vector<Worker> workers_;
  std::map<std::string, StageRange> holds_;
};

TEST_F(PlacementTest, TakesTheFirstWorkersInOrder) {
  options_.n_stages = 2;
  AddWorker("a", 1 << 30);
  AddWorker("b", 1 << 30);
  AddWorker("c", 1 << 30);
  const Placement placement = Place();
  ASSERT_EQ(placement.stages.size(), 2u);
  EXPECT_EQ(placement.stages[0].worker_id, "a");
  EXPECT_EQ(placement.stages[0].range.layer_begin, 0);
  EXPECT_TRUE(placement.stages[0].range.has_embedding);
  EXPECT_EQ(placement.stages[1].address, "b:1");
  EXPECT_EQ(placement.stages[1].range.layer_end, 8);
  EXPECT_TRUE(placement.stages[1].range.has_head);
}

TEST_F(PlacementTest, StagesAskedForGoToThoseThatHaveNotRefusedThem) {
  options_.layer_cuts = {4};
  AddWorker("a", 1 << 30);
  Worker& b = AddWorker("b", 1 << 30);
  const RefusedStage last = {{4, 8, false, true}, absl::DataLossError("x")};
  b.refused = {last};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"b:0-4 a:4-8"}));
  EXPECT_EQ(PlaceAll().n_refused, 0);
  // A spare is better than a worker that would have to give way.
  AddWorker("c", 1 << 30);
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 c:4-8"}));
  workers_.pop_back();
  workers_[0].refused = {last};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 b:4-8"}));
  EXPECT_EQ(PlaceAll().n_refused, 1);
}

TEST_F(PlacementTest, StagesAskedForStayWhereTheyAre) {
  options_.layer_cuts = {4};
  AddWorker("a", 1 << 30);
  AddWorker("b", 1 << 30);
  AddWorker("c", 1 << 30);
  holds_["a"] = {4, 8, false, true};
  // Nobody is asked to load another stage while there is a spare.
  EXPECT_EQ(Placed(), (std::vector<std::string>{"b:0-4 a:4-8"}));
  holds_["b"] = {4, 8, false, true};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"c:0-4 a:4-8"}));
  // Unless it could not load it.
  workers_[2].refused = {{{0, 4, true, false}, absl::DataLossError("x")}};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"b:0-4 a:4-8"}));
}

TEST_F(PlacementTest, GroupsAreOfWorkersThatHaveNotRefusedWhatTheyWouldGet) {
  options_.n_stages = 2;
  // The fast ones cannot do without each other's first layers.
  const RefusedStage first = {{0, 1, true, false}, absl::DataLossError("x")};
  AddWorker("a", 1 << 30, 1e-3);
  AddWorker("b", 1 << 30, 1e-3);
  AddWorker("c", 1 << 30, 2e-3);
  workers_[0].refused = {first};
  workers_[1].refused = {first};
  const Placements placements = PlaceAll();
  ASSERT_EQ(placements.pipelines.size(), 1u);
  EXPECT_EQ(placements.pipelines[0].stages[0].worker_id, "c");
  EXPECT_EQ(placements.n_refused, 0);
  // Of any size: one of them helps the third. Who has nothing better to do
  // tries again.
  options_.n_stages = 0;
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-8", "c:0-2 b:2-8"}));
  EXPECT_EQ(PlaceAll().n_refused, 1);
}

TEST_F(PlacementTest, AutomaticCacheHoldsEverySequencesContext) {
  AddWorker("a", int64_t{1} << 40);
  options_.max_sequences = 3;
  EXPECT_EQ(Place().kv_block_count, 3 * 160 / 16);
}

TEST_F(PlacementTest, AutomaticCacheShrinksToTheSmallestWorkersMemory) {
  options_.n_stages = 2;
  options_.max_sequences = 1000;
  AddWorker("a", 1 << 30);
  AddWorker("b", 16 << 20);
  const Placement placement = Place();
  const StageRange& range = placement.stages[1].range;
  const int kv_block_bytes =
      (range.layer_end - range.layer_begin) * 2 * 128 * 16 * 2;
  EXPECT_LE(placement.kv_block_count, (16 << 20) / kv_block_bytes);
  EXPECT_LT(placement.kv_block_count, 1000 * 160 / 16);
  EXPECT_GE(placement.kv_block_count, 160 / 16);
}

TEST_F(PlacementTest, SkipsAWorkerThatLacksMemory) {
  AddWorker("a", 1 << 10);
  AddWorker("b", 1 << 30);
  EXPECT_EQ(Place().stages[0].worker_id, "b");
}

TEST_F(PlacementTest, WeightsCountAsTheWorkerPacksThem) {
  options_.kv_cache_tokens = 16;
  const StageRange all = {0, 8, true, true};
  const PackedBlocks dense = {48, 320};
  const auto needed = [&](const PackedBlocks& blocks) {
    const StageCost cost = CostOf(Config(), all, options_.head_int8,
                                  options_.head_row_bytes, 16, blocks);
    return cost.weight_bytes + cost.kv_block_bytes;
  };
  ASSERT_LT(needed(dense), needed({}) - 1000);
  // Of the memory, a tenth is left to buffers.
  AddWorker("a", (needed({}) - 1000) * 10 / 9);
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kFailedPrecondition);
  workers_[0].registration.packed_blocks = dense;
  EXPECT_TRUE(WhyNone().ok());
}

TEST_F(PlacementTest, SaysWhatIsMissing) {
  options_.n_stages = 2;
  AddWorker("a", 1 << 30);
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(WhyNone().message().find("1 of 2 workers"),
            absl::string_view::npos);
  AddWorker("b", 1 << 10);
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(WhyNone().message().find("worker b"), absl::string_view::npos);
}

TEST_F(PlacementTest, AnAskedForCacheIsNeverMadeSmaller) {
  options_.kv_cache_tokens = 1000;
  AddWorker("a", 1 << 30);
  EXPECT_EQ(Place().kv_block_count, 63);
  options_.kv_cache_tokens = int64_t{1} << 30;
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PlacementTest, OptionsThatNobodyCanSatisfyAreRefused) {
  const auto check = [&] {
    return CheckPlacementOptions(Config(), options_).code();
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(check(), absl::StatusCode::kOk);
  options_.n_stages = 9;
  EXPECT_EQ(check(), kInvalid);
  options_.n_stages = -1;
  EXPECT_EQ(check(), kInvalid);
  options_.n_stages = 3;
  options_.layer_cuts = {3};
  EXPECT_EQ(check(), kInvalid);
  options_.layer_cuts = {3, 5};
  EXPECT_EQ(check(), absl::StatusCode::kOk);
  options_.n_stages = 0;
  for (const std::vector<int>& cuts :
       {std::vector<int>{0}, {8}, {3, 3}, {5, 3}}) {
    options_.layer_cuts = cuts;
    EXPECT_EQ(check(), kInvalid);
  }
}

TEST_F(PlacementTest, WhoeverFitsTheModelServesAlone) {
  options_.n_stages = 0;
  AddWorker("a", 1 << 30, 1);
  AddWorker("b", 1 << 30, 3);
  AddWorker("c", 1 << 30, 1);
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-8", "b:0-8", "c:0-8"}));
}

TEST_F(PlacementTest, AModelThatFitsNobodyIsCutAsItsMemoryNeeds) {
  options_.n_stages = 0;
  options_.kv_cache_tokens = 8 * 160;
  // Mostly arithmetic: what only reads weights gains nothing from more stages.
  const auto add = [&](const std::string& id, int64_t memory_bytes) {
    AddWorker(id, memory_bytes, 0.1).registration.step_times.layer_token_s = 1;
  };
  add("a", MemoryFor(4));
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(WhyNone().message().find("worker a"), absl::string_view::npos);
  add("b", MemoryFor(4));
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 b:4-8"}));
  // One more relieves the two; with four there are two pipelines.
  add("c", MemoryFor(4));
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-3 b:3-6 c:6-8"}));
  add("d", MemoryFor(4));
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 b:4-8", "c:0-4 d:4-8"}));
  // Of no use to anyone.
  add("e", 1000);
  EXPECT_EQ(Placed().size(), 2u);
}

TEST_F(PlacementTest, AMeasuredWorkerGetsWhatItCanDo) {
  options_.n_stages = 2;
  options_.kv_cache_tokens = 8 * 160;
  AddWorker("a", 1 << 30, 1);
  AddWorker("b", 1 << 30, 3);
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-6 b:6-8"}));
  workers_[0].slowdown = 3;
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 b:4-8"}));
  // Who has not measured is taken for the others' median.
  workers_[0].registration.step_times = {};
  workers_[0].slowdown = 1;
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 b:4-8"}));
}

TEST_F(PlacementTest, ClassesDoNotMix) {
  options_.n_stages = 2;
  for (const char* id : {"a", "b", "c", "d"}) {
    AddWorker(id, 1 << 30, 1).registration.numerics_class =
        id[0] % 2 == 0 ? "even" : "odd";
  }
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-4 c:4-8", "b:0-4 d:4-8"}));
}

TEST_F(PlacementTest, WhoHoldsAStageKeepsIt) {
  options_.n_stages = 2;
  AddWorker("a", 1 << 30, 1);
  AddWorker("b", 1 << 30, 1);
  ASSERT_EQ(Placed(), (std::vector<std::string>{"a:0-4 b:4-8"}));
  holds_["a"] = {4, 8, false, true};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"b:0-4 a:4-8"}));
}

TEST_F(PlacementTest, CutsAreAsAskedFor) {
  options_.n_stages = 0;
  options_.layer_cuts = {1, 7};
  options_.kv_cache_tokens = 8 * 160;
  AddWorker("a", MemoryFor(2));
  AddWorker("b", 1 << 30);
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kUnavailable);
  AddWorker("c", MemoryFor(2));
  AddWorker("d", 1 << 30);
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-1 b:1-7 c:7-8"}));
  for (const char* id : {"e", "f"}) AddWorker(id, 1 << 30);
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-1 b:1-7 c:7-8",
                                                "d:0-1 e:1-7 f:7-8"}));
  workers_.resize(3);
  workers_[1].registration.memory_bytes = MemoryFor(2);
  EXPECT_EQ(WhyNone().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PlacementTest, CutsAsAskedForLeaveStagesWithWhoHoldsThem) {
  options_.layer_cuts = {5};
  for (const char* id : {"a", "b", "c", "d"}) AddWorker(id, 1 << 30);
  holds_["b"] = {5, 8, false, true};
  holds_["c"] = {0, 5, true, false};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"c:0-5 b:5-8", "a:0-5 d:5-8"}));
  // Whoever holds a stage takes another before there is none.
  workers_.pop_back();
  workers_.erase(workers_.begin());
  holds_["b"] = {0, 5, true, false};
  EXPECT_EQ(Placed(), (std::vector<std::string>{"b:0-5 c:5-8"}));
}

TEST_F(PlacementTest, TheBoundaryIsKeptWhereItTakesNoBlocks) {
  options_.n_stages = 2;
  AddWorker("a", int64_t{1} << 40);
  AddWorker("b", int64_t{1} << 40);
  EXPECT_TRUE(Place().keeps_boundary);
  options_.keep_boundary = BoundaryKeeping::kNever;
  EXPECT_FALSE(Place().keeps_boundary);
  // One stage sends nothing.
  options_.n_stages = 1;
  options_.keep_boundary = BoundaryKeeping::kAlways;
  EXPECT_FALSE(Place().keeps_boundary);
}

TEST_F(PlacementTest, AskedForTheBoundaryTakesBlocksButNotTheLastOnes) {
  options_.n_stages = 2;
  options_.max_sequences = 1000;
  AddWorker("a", 16 << 20);
  AddWorker("b", 16 << 20);
  const Placement without = Place();
  EXPECT_FALSE(without.keeps_boundary);
  options_.keep_boundary = BoundaryKeeping::kAlways;
  const Placement with = Place();
  EXPECT_TRUE(with.keeps_boundary);
  EXPECT_LT(with.kv_block_count, without.kv_block_count);
  // What the first stage takes fits.
  const StageCost cost =
      CostOf(Config(), with.stages[0].range, options_.head_int8, 0, 16);
  const int64_t a_block =
      cost.kv_block_bytes + BoundaryBlockBytes(Config(), 16);
  const int64_t left = UsableMemory(16 << 20) - cost.weight_bytes;
  EXPECT_LE(with.kv_block_count * a_block, left);
  // A cache that was asked for is not made smaller.
  options_.kv_cache_tokens = int64_t{16} * without.kv_block_count;
  EXPECT_FALSE(Place().keeps_boundary);
  EXPECT_EQ(Place().kv_block_count, without.kv_block_count);
}

TEST_F(PlacementTest, AHeadAsStoredTakesItsShareOfTime) {
  options_.n_stages = 2;
  options_.kv_cache_tokens = 8 * 160;
  for (const char* id : {"a", "b"}) {
    AddWorker(id, 1 << 30, 1).registration.step_times.head_step_s = 2;
  }
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-5 b:5-8"}));
  options_.head_int8 = false;
  options_.head_row_bytes = 2 * (256 + 8);  // of 1000 rows; int8 has 1008
  EXPECT_EQ(Placed(), (std::vector<std::string>{"a:0-6 b:6-8"}));
}

TEST_F(PlacementTest, ManyEqualWorkersMakeAsManyPipelinesAsTheyCan) {
  options_.n_stages = 0;
  options_.kv_cache_tokens = 8 * 160;
  for (int i = 0; i < 3 * kExactWorkersMax; ++i) {
    AddWorker(absl::StrCat("w", i), MemoryFor(2));
  }
  const Placements placements = PlaceAll();
  std::set<std::string> used;
  for (const Placement& placement : placements.pipelines) {
    for (const PlacedStage& stage : placement.stages) {
      EXPECT_TRUE(used.insert(stage.worker_id).second);
    }
  }
  EXPECT_EQ(used.size(), 3u * kExactWorkersMax);
  // Each has room for two layers, or for one and the head.
  EXPECT_EQ(placements.pipelines.size(), 3u * kExactWorkersMax / 4);
}

// Every grouping of few workers, spares or not.
TEST_F(PlacementTest, NoGroupingIsFaster) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    workers_.clear();
    options_ = PlacementOptions();
    options_.n_stages = draw(0, 2);
    options_.kv_cache_tokens = 160 * draw(1, 8);
    options_.max_sequences = draw(1, 8);
    const int n = draw(1, 5);
    for (int i = 0; i < n; ++i) {
      Worker& worker =
          AddWorker(absl::StrCat("w", i), MemoryFor(draw(1, 8)), draw(1, 5));
      worker.registration.step_times.layer_token_s = draw(0, 3);
      worker.registration.step_times.head_step_s = draw(0, 9);
    }
    const std::vector<PlacementCandidate> all = Candidates();
    const auto rate_of = [&](unsigned set) {
      std::vector<PlacementCandidate> group;
      for (int i = 0; i < n; ++i) {
        if (set >> i & 1) group.push_back(all[i]);
      }
      PlacementOptions options = options_;
      const int size = static_cast<int>(group.size());
      if (options_.n_stages > 0 && size != options_.n_stages) return 0.0;
      options.n_stages = size;
      const Placements placed = PlacePipelines(Config(), options, group);
      return placed.pipelines.empty()
                 ? 0.0
                 : placed.pipelines[0].forecast.tokens_per_second;
    };
    const std::function<double(unsigned)> best = [&](unsigned set) -> double {
      if (set == 0) return 0;
      const unsigned first = set & -set;
      double most = best(set ^ first);
      for (unsigned group = set; group != 0; group = (group - 1) & set) {
        if ((group & first) == 0) continue;
        const double rate = rate_of(group);
        if (rate > 0) most = std::max(most, rate + best(set ^ group));
      }
      return most;
    };
    double sum = 0;
    const Placements placements = PlaceAll();
    for (const Placement& placement : placements.pipelines) {
      sum += placement.forecast.tokens_per_second;
    }
    const double expected = best((1u << n) - 1);
    EXPECT_NEAR(sum, expected, 1e-7 * expected);
    // Who can be placed is, and who cannot is told so.
    if (options_.n_stages == 0) {
      EXPECT_EQ(CanPlace(Config(), options_, all), expected > 0);
    }
  }
}

}  // namespace
}  // namespace tern
