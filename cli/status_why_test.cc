#include "cli/status_why.h"

#include <string>

#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.pb.h"

namespace tern {
namespace {

v1::ListWorkersResponse TwoStages() {
  v1::ListWorkersResponse workers;
  v1::PipelineForecast* pipeline = workers.add_pipelines();
  pipeline->set_pipeline_id("demo/0");
  pipeline->set_wanted_count(64);
  pipeline->set_running_count(64);
  pipeline->set_context_token_count(512);
  pipeline->set_cycle_seconds(0.24);
  pipeline->set_tokens_per_second(266.7);
  pipeline->set_slowest_stage_index(0);
  pipeline->set_fullest_worker_id("b");
  for (int i = 0; i < 2; ++i) {
    v1::StageForecast* stage = pipeline->add_stages();
    stage->set_worker_id(i == 0 ? "a" : "b");
    stage->set_layer_begin(i * 24);
    stage->set_layer_end(i == 0 ? 24 : 30);
    stage->set_stage_seconds(i == 0 ? 0.12 : 0.0051);
    stage->set_link_seconds(0.0003);
    stage->set_weight_bytes(300 << 20);
    stage->set_kv_bytes(100 << 20);
    stage->set_memory_bytes(int64_t{2} << 30);
    stage->set_is_measured(i == 0);
  }
  return workers;
}

TEST(FormatWhy, ShowsWhatStagesTakeAndWhichIsTheSlowest) {
  EXPECT_EQ(FormatWhy(TwoStages()), R"(
pipeline demo/0: 266.7 tokens/s expected of 64 sequences with 512 tokens each
STAGE  WORKER  LAYERS     TAKES     LINK  WEIGHTS  KV POOL       OF  TIMES
  1/2  a         0-23  120.0 ms  0.30 ms  300 MiB  100 MiB  2.0 GiB  measured
  2/2  b        24-29   5.10 ms  0.30 ms  300 MiB  100 MiB  2.0 GiB  by bytes
  each sequence gets a token in 240.0 ms: all micro-batches on the slowest stage, a
)");
}

TEST(FormatWhy, SaysWhatWouldHelp) {
  v1::ListWorkersResponse workers = TwoStages();
  workers.mutable_pipelines(0)->set_running_count(14);
  workers.mutable_pipelines(0)->set_recut_gain(0.334);
  workers.mutable_pipelines(0)->set_is_round_bound(true);
  const std::string text = FormatWhy(workers);
  EXPECT_NE(text.find("14 of 64 sequences: b has the least memory left"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("33 % more"), std::string::npos) << text;
  EXPECT_NE(text.find("faster links"), std::string::npos) << text;
}

TEST(FormatWhy, NamesSparesAndSlowWorkers) {
  v1::ListWorkersResponse workers;
  EXPECT_EQ(FormatWhy(workers), "");
  v1::Worker* spare = workers.add_workers();
  spare->set_worker_id("s");
  spare->set_why_idle("1 of 2 workers that a pipeline needs are there");
  v1::Worker* slow = workers.add_workers();
  slow->set_worker_id("t");
  slow->set_slowdown(3.14);
  EXPECT_EQ(FormatWhy(workers),
            "\nworker s has no stage: 1 of 2 workers that a pipeline needs are "
            "there\n");
  slow->set_is_slow(true);
  EXPECT_NE(FormatWhy(workers).find("worker t takes 3.1 times as long as"),
            std::string::npos);
}

}  // namespace
}  // namespace tern
