#include "coordinator/worker_assignment.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

AssignableWorker Spare(const std::string& id,
                       std::vector<std::string> models = {"a", "b"}) {
  return {id, std::move(models), /*can_fetch=*/false, /*available=*/true,
          /*has_stage=*/false};
}

AssignableWorker Busy(const std::string& id) {
  return {id,
          {"a", "b"},
          /*can_fetch=*/false,
          /*available=*/true,
          /*has_stage=*/true};
}

ModelWorkers Model(const std::string& name, int n_stages, int n_pipelines = 0) {
  ModelWorkers model;
  model.name = name;
  model.n_stages = n_stages;
  model.n_pipelines = n_pipelines;
  return model;
}

int Choose(const std::vector<ModelWorkers>& models,
           std::vector<std::string> can_serve) {
  return ChooseModel(models, Spare("new", std::move(can_serve)));
}

TEST(ChooseModelTest, FillsTheModelThatLacksFewest) {
  std::vector<ModelWorkers> models = {Model("a", 3), Model("b", 2)};
  EXPECT_EQ(Choose(models, {"a", "b"}), 1);
  models[0].workers = {Spare("1"), Spare("2")};
  EXPECT_EQ(Choose(models, {"a", "b"}), 0);
}

TEST(ChooseModelTest, SharesOutEvenlyWhatIsMoreThanNeeded) {
  std::vector<ModelWorkers> models = {Model("a", 2, 1), Model("b", 1, 1)};
  models[0].workers = {Busy("1"), Busy("2"), Spare("3")};
  models[1].workers = {Busy("4")};
  EXPECT_EQ(Choose(models, {"a", "b"}), 1);
  models[1].workers.push_back(Busy("5"));
  EXPECT_EQ(Choose(models, {"a", "b"}), 0);
}

TEST(ChooseModelTest, KeepsToTheFilesThatTheWorkerHas) {
  const std::vector<ModelWorkers> models = {Model("a", 1), Model("b", 1, 3)};
  EXPECT_EQ(Choose(models, {"b"}), 1);
  EXPECT_EQ(Choose(models, {"c"}), 0);
}

TEST(ChooseModelTest, WhoCanFetchCanServeWhatCanBeFetched) {
  std::vector<ModelWorkers> models = {Model("a", 1, 1), Model("b", 1),
                                      Model("c", 1)};
  AssignableWorker worker = Spare("new", {"a"});
  worker.can_fetch = true;
  EXPECT_EQ(ChooseModel(models, worker), 0);
  models[2].can_be_fetched = true;
  EXPECT_EQ(ChooseModel(models, worker), 2);
  worker.can_fetch = false;
  EXPECT_EQ(ChooseModel(models, worker), 0);
}

TEST(ChooseModelTest, AStuckModelGetsMoreThanItSeemedToNeed) {
  std::vector<ModelWorkers> models = {Model("a", 1, 0), Model("b", 1, 1)};
  models[0].workers = {Spare("1")};
  models[1].workers = {Busy("3")};
  EXPECT_EQ(Choose(models, {"a", "b"}), 0);  // of equals the first
  models[0].workers.push_back(Spare("2"));
  EXPECT_EQ(Choose(models, {"a", "b"}), 1);
  models[0].is_stuck = true;
  EXPECT_EQ(Choose(models, {"a", "b"}), 0);
}

TEST(WorkersToMoveTest, TakesSpareOnesBeforeThoseThatServe) {
  std::vector<ModelWorkers> models = {Model("a", 1, 3), Model("b", 2)};
  models[0].workers = {Busy("1"), Busy("2"), Busy("3"), Spare("4")};
  EXPECT_THAT(WorkersToMove(models), ElementsAre("4", "1"));
}

TEST(WorkersToMoveTest, LeavesEachModelAPipeline) {
  std::vector<ModelWorkers> models = {Model("a", 2, 1), Model("b", 1)};
  models[0].workers = {Busy("1"), Busy("2")};
  EXPECT_THAT(WorkersToMove(models), IsEmpty());
  models[0].workers.push_back(Spare("3"));
  EXPECT_THAT(WorkersToMove(models), ElementsAre("3"));
}

TEST(WorkersToMoveTest, MovesNothingWhereItWouldNotBeEnough) {
  std::vector<ModelWorkers> models = {Model("a", 1, 2), Model("b", 2)};
  models[0].workers = {Busy("1"), Busy("2")};
  EXPECT_THAT(WorkersToMove(models), IsEmpty());
}

TEST(WorkersToMoveTest, LeavesServingModelsAlone) {
  std::vector<ModelWorkers> models = {Model("a", 1, 4), Model("b", 1, 1)};
  for (const char* id : {"1", "2", "3", "4"}) {
    models[0].workers.push_back(Busy(id));
  }
  models[1].workers = {Busy("5")};
  EXPECT_THAT(WorkersToMove(models), IsEmpty());
}

TEST(WorkersToMoveTest, TakesThoseThatAreOfNoUseAndNoneThatCannotHelp) {
  std::vector<ModelWorkers> models = {Model("a", 1, 0), Model("b", 1, 0)};
  // What it has is the other's file.
  models[0].workers = {Spare("1", {"b"}), Spare("2", {"c"})};
  EXPECT_THAT(WorkersToMove(models), ElementsAre("1"));
  models[0].workers[0].available = false;
  EXPECT_THAT(WorkersToMove(models), IsEmpty());
}

}  // namespace
}  // namespace tern
