#include "cli/status.h"

#include <string>

#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {
namespace {

TEST(Status, AnEmptyClusterSaysSo) {
  EXPECT_EQ(FormatStatus({}, {}), "no models\nno workers\n");
}

TEST(Status, ShowsTheJournalWhereThereIsOne) {
  v1::ListModelsResponse models;
  models.mutable_journal()->set_state(v1::JOURNAL_STATE_NONE);
  EXPECT_EQ(FormatStatus(models, {}), "no models\nno workers\n");
  models.mutable_journal()->set_state(v1::JOURNAL_STATE_WRITING);
  models.mutable_journal()->set_byte_count(3 << 20);
  models.mutable_journal()->set_request_count(2);
  EXPECT_EQ(FormatStatus(models, {}),
            "no models\njournal: 3.0 MiB, 2 requests may be resumed\n\n"
            "no workers\n");
  models.mutable_journal()->set_state(v1::JOURNAL_STATE_GIVEN_UP);
  models.mutable_journal()->set_problem("no space");
  models.mutable_journal()->set_lost_event_count(7);
  EXPECT_EQ(FormatStatus(models, {}),
            "no models\njournal: GIVEN UP, 7 events lost, no space; 2 requests "
            "may be resumed\n\nno workers\n");
}

TEST(Status, ShowsModelsPipelinesStagesAndWorkers) {
  v1::ListModelsResponse models;
  v1::Model* model = models.add_models();
  model->set_name("demo");
  model->set_architecture("bitnet-b1.58");
  model->set_layer_count(6);
  model->set_hidden_size(384);
  model->set_vocab_size(1024);
  model->set_context_length(512);
  model->set_numerics_id("cpu-1/int8");
  v1::Pipeline* pipeline = model->add_pipelines();
  pipeline->set_pipeline_id("demo-0");
  pipeline->set_state(v1::PIPELINE_STATE_LOADING);
  pipeline->set_kv_block_count(128);
  pipeline->set_kv_block_in_use_count(12);
  pipeline->set_kv_block_cached_count(7);
  pipeline->set_kv_block_size(64);
  for (int i = 0; i < 2; ++i) {
    v1::Stage* stage = pipeline->add_stages();
    stage->set_worker_id(i == 0 ? "worker-1" : "worker-2");
    stage->set_layer_begin(i * 4);
    stage->set_layer_end(i == 0 ? 4 : 6);
    (i == 0) ? stage->set_has_embedding(true) : stage->set_has_head(true);
    stage->set_weight_bytes(1 << 20);
    stage->set_kv_bytes(3 << 20);
    stage->set_load_progress(i == 0 ? 1 : 0.5);
  }
  v1::ListWorkersResponse workers;
  for (int i = 1; i <= 3; ++i) {
    v1::Worker* worker = workers.add_workers();
    worker->set_worker_id("worker-" + std::to_string(i));
    worker->set_address("127.0.0.1:900" + std::to_string(i));
    worker->mutable_capabilities()->set_kernel_isa("avx2");
    worker->mutable_capabilities()->set_thread_count(4);
    worker->mutable_capabilities()->set_memory_bytes(int64_t{8} << 30);
    worker->mutable_time_since_heartbeat()->set_nanos(400'000'001);
    worker->set_finished_step_count(17);
    worker->set_state(i == 3 ? v1::WORKER_STATE_IDLE : v1::WORKER_STATE_READY);
    if (i < 3) worker->set_pipeline_id("demo-0");
    worker->set_stage_index(i < 3 ? i - 1 : 0);
  }
  v1::ListModelsResponse serving = models;
  pipeline = serving.mutable_models(0)->mutable_pipelines(0);
  pipeline->set_state(v1::PIPELINE_STATE_READY);
  pipeline->set_running_count(3);
  pipeline->set_prefix_token_count(400);
  pipeline->set_prefix_cached_token_count(130);
  pipeline->set_preemption_count(2);
  pipeline->set_draft_token_count(50);
  pipeline->set_accepted_draft_token_count(20);
  EXPECT_NE(FormatStatus(serving, workers)
                .find("pipeline demo-0: READY, 12 of 128 KV blocks of 64 "
                      "tokens in use, 7 cached\n  3 running; 32 % of 400 "
                      "prompt tokens were cached; 2 times one gave way and "
                      "was computed again; 40 % of 50 guessed tokens "
                      "came true\nSTAGE"),
            std::string::npos)
      << FormatStatus(serving, workers);
  EXPECT_EQ(
      FormatStatus(models, workers),
      R"(model demo: bitnet-b1.58, 6 layers of 384, 1024 tokens, context 512, cpu-1/int8

pipeline demo-0: LOADING, 12 of 128 KV blocks of 64 tokens in use, 7 cached
STAGE  WORKER    LAYERS  ALSO       WEIGHTS  KV POOL  LOADED
  1/2  worker-1     0-3  embedding  1.0 MiB  3.0 MiB    100%
  2/2  worker-2     4-5  head       1.0 MiB  3.0 MiB     50%

WORKER    STATE  ADDRESS         SERVES          ISA   THREADS   MEMORY  STEPS      HEARD  DEVICE
worker-1  READY  127.0.0.1:9001  demo-0 stage 1  avx2        4  8.0 GiB     17  400ms ago  -
worker-2  READY  127.0.0.1:9002  demo-0 stage 2  avx2        4  8.0 GiB     17  400ms ago  -
worker-3  IDLE   127.0.0.1:9003  -               avx2        4  8.0 GiB     17  400ms ago  -
)");
}

}  // namespace
}  // namespace tern
