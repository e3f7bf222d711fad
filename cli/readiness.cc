#include "cli/readiness.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/progress_line.h"
#include "util/clock.h"

namespace tern {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(200);

// However short the wait is to be, one call gets the time to be answered.
constexpr absl::Duration kShortestCall = absl::Seconds(2);

// Steps of the percentages: a terminal's line may change as often as it likes,
// lines of a log may not.
constexpr int kTerminalStep = 1;
constexpr int kLogStep = 25;

std::string LoadProgress(const v1::Pipeline& pipeline, int percent_step) {
  std::vector<std::string> stages;
  for (int i = 0; i < pipeline.stages_size(); ++i) {
    const v1::Stage& stage = pipeline.stages(i);
    const int percent = static_cast<int>(stage.load_progress() * 100);
    stages.push_back(absl::StrCat("stage ", i + 1, "/", pipeline.stages_size(),
                                  " on ", stage.worker_id(), " ",
                                  percent / percent_step * percent_step, "%"));
  }
  return absl::StrJoin(stages, ", ");
}

}  // namespace

Readiness ReadinessOf(const v1::ListModelsResponse& models,
                      const std::string& name, int percent_step) {
  const v1::Model* model = nullptr;
  for (const v1::Model& m : models.models()) {
    if (name.empty() ? models.models_size() == 1 : m.name() == name) model = &m;
  }
  if (model == nullptr) {
    // Which of several models is meant is for the cluster to ask.
    if (name.empty() && models.models_size() > 1) return {true, ""};
    return {false, name.empty() ? "no model yet"
                                : absl::StrCat("no model ", name, " yet")};
  }
  std::string waiting = "no pipeline yet";
  for (const v1::Pipeline& pipeline : model->pipelines()) {
    if (pipeline.state() == v1::PIPELINE_STATE_READY) return {true, ""};
    if (pipeline.state() == v1::PIPELINE_STATE_LOADING) {
      waiting = LoadProgress(pipeline, percent_step);
    } else if (waiting == "no pipeline yet") {
      waiting = "waiting for workers";
    }
  }
  return {false, waiting};
}

absl::Status WaitUntilReady(Client* client, const std::string& model,
                            absl::Duration patience,
                            Cancellation* cancellation) {
  Clock* const clock = Clock::System();
  const absl::Time deadline = clock->Now() + patience;
  ProgressLine line;
  for (;;) {
    CallOptions call;
    call.cancellation = cancellation;
    call.deadline = std::max(deadline - clock->Now(), kShortestCall);
    const auto models = client->ListModels(call);
    if (models.ok()) {
      const Readiness readiness = ReadinessOf(
          *models, model, line.on_terminal() ? kTerminalStep : kLogStep);
      if (readiness.ready) return absl::OkStatus();
      line.Show(absl::StrCat("loading: ", readiness.progress));
    } else if (absl::IsUnavailable(models.status()) ||
               absl::IsDeadlineExceeded(models.status())) {
      line.Show("waiting for the coordinator");
    } else {
      return models.status();
    }
    if (clock->Now() >= deadline) {
      return absl::UnavailableError(absl::StrCat(
          "the cluster was not ready after ", absl::FormatDuration(patience),
          " (", line.shown(), ")"));
    }
    if (cancellation->WaitFor(kPollInterval)) {
      return absl::CancelledError("interrupted while waiting");
    }
  }
}

}  // namespace tern
