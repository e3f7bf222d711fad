#include "cli/readiness.h"

#include <string>

#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {
namespace {

v1::Pipeline* AddPipeline(v1::Model* model, v1::PipelineState state) {
  v1::Pipeline* pipeline = model->add_pipelines();
  pipeline->set_state(state);
  return pipeline;
}

TEST(Readiness, AnEmptyClusterIsNotReady) {
  EXPECT_EQ(ReadinessOf({}, "", 1).progress, "no model yet");
  EXPECT_EQ(ReadinessOf({}, "m", 1).progress, "no model m yet");
}

TEST(Readiness, OnePipelineThatServesIsEnough) {
  v1::ListModelsResponse models;
  v1::Model* model = models.add_models();
  model->set_name("m");
  AddPipeline(model, v1::PIPELINE_STATE_LOADING);
  EXPECT_FALSE(ReadinessOf(models, "", 1).ready);
  AddPipeline(model, v1::PIPELINE_STATE_READY);
  EXPECT_TRUE(ReadinessOf(models, "", 1).ready);
  EXPECT_TRUE(ReadinessOf(models, "m", 1).ready);
  EXPECT_FALSE(ReadinessOf(models, "n", 1).ready);
}

TEST(Readiness, SaysHowFarEachStageIs) {
  v1::ListModelsResponse models;
  v1::Pipeline* pipeline =
      AddPipeline(models.add_models(), v1::PIPELINE_STATE_LOADING);
  for (const float progress : {0.639f, 1.0f}) {
    v1::Stage* stage = pipeline->add_stages();
    stage->set_worker_id(progress < 1 ? "a" : "b");
    stage->set_load_progress(progress);
  }
  EXPECT_EQ(ReadinessOf(models, "", 1).progress,
            "stage 1/2 on a 63%, stage 2/2 on b 100%");
  EXPECT_EQ(ReadinessOf(models, "", 25).progress,
            "stage 1/2 on a 50%, stage 2/2 on b 100%");
}

TEST(Readiness, SaysThatWorkersAreMissing) {
  v1::ListModelsResponse models;
  AddPipeline(models.add_models(), v1::PIPELINE_STATE_WAITING);
  EXPECT_EQ(ReadinessOf(models, "", 1).progress, "waiting for workers");
}

TEST(Readiness, LeavesTheChoiceOfAModelToTheCluster) {
  v1::ListModelsResponse models;
  models.add_models();
  models.add_models();
  EXPECT_TRUE(ReadinessOf(models, "", 1).ready);
}

}  // namespace
}  // namespace tern
