#include "cli/status_why.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/text_table.h"

namespace tern {
namespace {

// Less is not worth a sentence.
constexpr double kGainWorthMention = 0.05;

std::string Milliseconds(double seconds) {
  return absl::StrFormat("%.*f ms", seconds < 0.01 ? 2 : 1, seconds * 1e3);
}

std::string Stages(const v1::PipelineForecast& pipeline) {
  std::vector<std::vector<std::string>> rows = {{"STAGE", "WORKER", "LAYERS",
                                                 "TAKES", "LINK", "WEIGHTS",
                                                 "KV POOL", "OF", "TIMES"}};
  for (int i = 0; i < pipeline.stages_size(); ++i) {
    const v1::StageForecast& stage = pipeline.stages(i);
    rows.push_back(
        {absl::StrCat(i + 1, "/", pipeline.stages_size()), stage.worker_id(),
         absl::StrCat(stage.layer_begin(), "-", stage.layer_end() - 1),
         Milliseconds(stage.stage_seconds()),
         pipeline.stages_size() == 1 ? "-" : Milliseconds(stage.link_seconds()),
         FormatBytes(stage.weight_bytes()), FormatBytes(stage.kv_bytes()),
         FormatBytes(stage.memory_bytes()),
         stage.is_measured() ? "measured" : "by bytes"});
  }
  return TextTable(rows);
}

std::string WhyPipeline(const v1::PipelineForecast& pipeline) {
  std::string text = absl::StrFormat(
      "pipeline %s: %.1f tokens/s expected of %d sequences with %d tokens "
      "each\n",
      pipeline.pipeline_id(), pipeline.tokens_per_second(),
      pipeline.running_count(), pipeline.context_token_count());
  absl::StrAppend(&text, Stages(pipeline));
  const int n_stages = pipeline.stages_size();
  if (n_stages > 1 && pipeline.slowest_stage_index() < n_stages) {
    const v1::StageForecast& slowest =
        pipeline.stages(pipeline.slowest_stage_index());
    absl::StrAppend(
        &text, "  each sequence gets a token in ",
        Milliseconds(pipeline.cycle_seconds()), ": ",
        pipeline.is_round_bound()
            ? "one round through all stages and links, which is longer than "
              "their turns on the slowest stage; fewer stages or faster links "
              "would help\n"
            : absl::StrCat("all micro-batches on the slowest stage, ",
                           slowest.worker_id(), "\n"));
  }
  if (pipeline.running_count() < pipeline.wanted_count()) {
    absl::StrAppend(&text, "  the KV cache holds ", pipeline.running_count(),
                    " of ", pipeline.wanted_count(),
                    " sequences: ", pipeline.fullest_worker_id(),
                    " has the least memory left; more there, or more workers, "
                    "would help\n");
  }
  if (pipeline.recut_gain() >= kGainWorthMention) {
    absl::StrAppend(
        &text, "  cut anew, it is expected to give ",
        static_cast<int>(std::lround(100 * pipeline.recut_gain())),
        " % more; that happens by itself where it pays (coordinator "
        "--recut_interval)\n");
  }
  return text;
}

}  // namespace

std::string DescribeSlowness(const v1::Worker& worker) {
  return absl::StrFormat(
      "worker %s takes %.1f times as long as it measured at its start",
      worker.worker_id(), worker.slowdown());
}

std::string FormatWhy(const v1::ListWorkersResponse& workers) {
  std::string text;
  for (const v1::PipelineForecast& pipeline : workers.pipelines()) {
    absl::StrAppend(&text, "\n", WhyPipeline(pipeline));
  }
  std::string others;
  for (const v1::Worker& worker : workers.workers()) {
    if (worker.is_slow()) {
      absl::StrAppend(&others, DescribeSlowness(worker), "\n");
    }
    if (!worker.why_idle().empty()) {
      absl::StrAppend(&others, "worker ", worker.worker_id(),
                      " has no stage: ", worker.why_idle(), "\n");
    }
  }
  if (!others.empty()) absl::StrAppend(&text, "\n", others);
  return text;
}

}  // namespace tern
