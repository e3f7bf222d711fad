#include "cli/status.h"

#include <iostream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "cli/connection.h"
#include "cli/report.h"
#include "cli/status_why.h"
#include "cli/text_table.h"
#include "client/client.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(bool, why, false,
          "Also say why layers and workers are where they are.");

namespace tern {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string PartsOf(const v1::Stage& stage) {
  if (stage.has_embedding() && stage.has_head()) return "embedding, head";
  if (stage.has_embedding()) return "embedding";
  return stage.has_head() ? "head" : "-";
}

std::string FormatPipeline(const v1::Pipeline& pipeline) {
  std::string text = absl::StrCat("pipeline ", pipeline.pipeline_id(), ": ",
                                  ShortName(pipeline.state()));
  if (pipeline.kv_block_count() > 0) {
    absl::StrAppend(&text, ", ", pipeline.kv_block_in_use_count(), " of ",
                    pipeline.kv_block_count(), " KV blocks of ",
                    pipeline.kv_block_size(), " tokens in use, ",
                    pipeline.kv_block_cached_count(), " cached");
  }
  if (pipeline.state() == v1::PIPELINE_STATE_READY) {
    absl::StrAppend(&text, "\n  ", pipeline.running_count(), " running");
    if (pipeline.prefix_token_count() > 0) {
      absl::StrAppend(&text, "; ",
                      100 * pipeline.prefix_cached_token_count() /
                          pipeline.prefix_token_count(),
                      " % of ", pipeline.prefix_token_count(),
                      " prompt tokens were cached");
    }
    if (pipeline.preemption_count() > 0) {
      absl::StrAppend(&text, "; ", pipeline.preemption_count(),
                      " times one gave way and was computed again");
    }
    if (pipeline.refilled_token_count() > 0) {
      absl::StrAppend(&text, "; ", pipeline.refilled_token_count(),
                      " tokens were computed again for a lost stage");
    }
    if (pipeline.draft_token_count() > 0) {
      absl::StrAppend(&text, "; ",
                      100 * pipeline.accepted_draft_token_count() /
                          pipeline.draft_token_count(),
                      " % of ", pipeline.draft_token_count(),
                      " guessed tokens came true");
    }
  }
  text += "\n";
  if (pipeline.stages().empty()) return text;
  Rows rows = {
      {"STAGE", "WORKER", "LAYERS", "ALSO", "WEIGHTS", "KV POOL", "LOADED"}};
  for (int i = 0; i < pipeline.stages_size(); ++i) {
    const v1::Stage& stage = pipeline.stages(i);
    rows.push_back(
        {absl::StrCat(i + 1, "/", pipeline.stages_size()), stage.worker_id(),
         absl::StrCat(stage.layer_begin(), "-", stage.layer_end() - 1),
         PartsOf(stage), FormatBytes(stage.weight_bytes()),
         FormatBytes(stage.kv_bytes()),
         absl::StrCat(static_cast<int>(stage.load_progress() * 100), "%")});
  }
  return text + TextTable(rows);
}

std::string OrDash(const std::string& text) {
  return text.empty() ? "-" : text;
}

// What a worker does: its stage, or nothing.
std::string DutyOf(const v1::Worker& worker) {
  if (worker.pipeline_id().empty()) return "-";
  return absl::StrCat(worker.pipeline_id(), " stage ",
                      worker.stage_index() + 1);
}

std::string FormatWorkers(const v1::ListWorkersResponse& workers) {
  if (workers.workers().empty()) return "no workers\n";
  Rows rows = {{"WORKER", "STATE", "ADDRESS", "SERVES", "ISA", "THREADS",
                "MEMORY", "STEPS", "HEARD", "DEVICE"}};
  for (const v1::Worker& worker : workers.workers()) {
    const v1::WorkerCapabilities& can = worker.capabilities();
    const absl::Duration silence =
        absl::Seconds(worker.time_since_heartbeat().seconds()) +
        absl::Nanoseconds(worker.time_since_heartbeat().nanos());
    rows.push_back({worker.worker_id(), ShortName(worker.state()),
                    worker.address(), DutyOf(worker), OrDash(can.kernel_isa()),
                    absl::StrCat(can.thread_count()),
                    FormatBytes(can.memory_bytes()),
                    absl::StrCat(worker.finished_step_count()),
                    absl::StrCat(absl::FormatDuration(absl::Trunc(
                                     silence, absl::Milliseconds(100))),
                                 " ago"),
                    OrDash(can.device())});
  }
  return TextTable(rows);
}

// Nothing for a coordinator that keeps none.
std::string FormatJournal(const v1::Journal& journal) {
  const std::string requests =
      absl::StrCat(journal.request_count(), " requests may be resumed\n\n");
  switch (journal.state()) {
    case v1::JOURNAL_STATE_WRITING:
      return absl::StrCat("journal: ", FormatBytes(journal.byte_count()), ", ",
                          requests);
    case v1::JOURNAL_STATE_GIVEN_UP:
      return absl::StrCat("journal: GIVEN UP, ", journal.lost_event_count(),
                          " events lost, ", journal.problem(), "; ", requests);
    default:
      return "";
  }
}

absl::Status Status(const ClientOptions& options, bool why) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  CallOptions call;
  call.cancellation = CancelledByUser();
  ASSIGN_OR_RETURN(const v1::ListModelsResponse models,
                   client->ListModels(call));
  ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers,
                   client->ListWorkers(call));
  std::cout << FormatStatus(models, workers);
  if (why) std::cout << FormatWhy(workers);
  std::cout << std::flush;
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  if (!arguments.positional.empty()) {
    return ReportUsage("status", absl::StrCat("status takes no \"",
                                              arguments.positional[0], "\""));
  }
  const ClientOptions options = ClientOptionsFromFlags();
  return Report(Status(options, absl::GetFlag(FLAGS_why)), options.server);
}

}  // namespace

std::string ShortName(v1::WorkerState state) {
  const std::string name = v1::WorkerState_Name(state);
  return std::string(absl::StripPrefix(name, "WORKER_STATE_"));
}

std::string ShortName(v1::PipelineState state) {
  const std::string name = v1::PipelineState_Name(state);
  return std::string(absl::StripPrefix(name, "PIPELINE_STATE_"));
}

std::string FormatStatus(const v1::ListModelsResponse& models,
                         const v1::ListWorkersResponse& workers) {
  std::string text;
  if (models.models().empty()) text = "no models\n";
  for (const v1::Model& model : models.models()) {
    absl::StrAppend(&text, "model ", model.name(), ": ", model.architecture(),
                    ", ", model.layer_count(), " layers of ",
                    model.hidden_size(), ", ", model.vocab_size(),
                    " tokens, context ", model.context_length(), ", ",
                    model.numerics_id(), "\n");
    for (const v1::Pipeline& pipeline : model.pipelines()) {
      absl::StrAppend(&text, "\n", FormatPipeline(pipeline));
    }
    text += "\n";
  }
  absl::StrAppend(&text, FormatJournal(models.journal()));
  return text + FormatWorkers(workers);
}

Command StatusCommand() {
  return {"status",
          "show models, pipelines and workers",
          R"(usage: tern status [--why] [FLAGS]

Prints the models that the cluster serves, the pipelines of each with their
stages, and the workers. A worker without a stage is a spare. With --why also
what the stages are expected to take, what holds each pipeline back, why spares
have no stage, and which workers have become slow.
)",
          {"cli/status.cc", kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
