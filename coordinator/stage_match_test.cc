#include "coordinator/stage_match.h"

#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "coordinator/stage_cut.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

std::vector<CutStage> Stages(int n) {
  std::vector<CutStage> stages;
  for (int i = 0; i < n; ++i) stages.push_back({-1, i, i + 1});
  return stages;
}

std::vector<int> Workers(const std::vector<CutStage>& stages) {
  std::vector<int> workers;
  for (const CutStage& stage : stages) workers.push_back(stage.worker);
  return workers;
}

// Worker w may have stage s where allowed[s] has the digit w.
MayHave Allowed(std::vector<std::string> allowed) {
  return [allowed](const CutStage& stage) {
    return allowed[stage.layer_begin].find(
               static_cast<char>('0' + stage.worker)) != std::string::npos;
  };
}

TEST(MatchStages, TheFirstOnesInOrder) {
  EXPECT_EQ(Workers(MatchStages(Stages(2), 3, {Allowed({"012", "012"})})),
            (std::vector<int>{0, 1}));
}

TEST(MatchStages, AnEarlierStageGivesWayWhenItFindsAnother) {
  EXPECT_EQ(Workers(MatchStages(Stages(2), 2, {Allowed({"01", "0"})})),
            (std::vector<int>{1, 0}));
  EXPECT_EQ(Workers(MatchStages(Stages(3), 3, {Allowed({"01", "02", "0"})})),
            (std::vector<int>{1, 2, 0}));
  EXPECT_TRUE(MatchStages(Stages(2), 2, {Allowed({"0", "0"})}).empty());
}

TEST(MatchStages, WishesAreGivenUpInOrder) {
  const MayHave any = Allowed({"012", "012"});
  EXPECT_EQ(Workers(MatchStages(Stages(2), 3, {Allowed({"", "0"}), any})),
            (std::vector<int>{1, 0}));
  EXPECT_EQ(Workers(MatchStages(
                Stages(2), 3, {Allowed({"2", ""}), Allowed({"2", "1"}), any})),
            (std::vector<int>{2, 1}));
}

// All have a worker when that is possible at all.
TEST(MatchStages, FindsAWayIfThereIsOne) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const int n_stages = static_cast<int>(random() % 4) + 1;
    const int n_workers = static_cast<int>(random() % 4) + 1;
    std::vector<std::string> allowed(n_stages);
    for (std::string& workers : allowed) {
      for (int w = 0; w < n_workers; ++w) {
        if (random() % 2 == 0) workers += static_cast<char>('0' + w);
      }
    }
    const MayHave may_have = Allowed(allowed);
    const std::function<bool(int, std::set<int>)> possible =
        [&](int stage, std::set<int> used) {
          if (stage == n_stages) return true;
          for (int w = 0; w < n_workers; ++w) {
            if (used.count(w) > 0 || !may_have({w, stage, stage + 1})) continue;
            std::set<int> more = used;
            more.insert(w);
            if (possible(stage + 1, more)) return true;
          }
          return false;
        };
    const std::vector<CutStage> matched =
        MatchStages(Stages(n_stages), n_workers, {may_have});
    ASSERT_EQ(!matched.empty(), possible(0, {})) << round;
    std::set<int> used;
    for (const CutStage& stage : matched) {
      EXPECT_TRUE(may_have(stage));
      EXPECT_TRUE(used.insert(stage.worker).second);
    }
  }
}

}  // namespace
}  // namespace tern
