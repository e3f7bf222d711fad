#include "cli/models.h"

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cli/connection.h"
#include "cli/report.h"
#include "cli/text_table.h"
#include "client/client.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, load_name, "",
          "load: the model's name in the cluster. Empty: the file's without "
          ".gguf.");
ABSL_FLAG(int, load_stages, 0,
          "load: workers that share a copy of the model. 0: the coordinator's "
          "--stages.");
ABSL_FLAG(int64_t, load_kv_cache_tokens, 0,
          "load: tokens that the KV cache of each pipeline holds. 0: the "
          "coordinator's --kv_cache_tokens.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "unload: how long requests in progress may go on.");

namespace tern {
namespace {

absl::Status List(Client* client, const CallOptions& call) {
  ASSIGN_OR_RETURN(const v1::ListModelsResponse models,
                   client->ListModels(call));
  if (models.models().empty()) {
    std::cout << "no models" << std::endl;
    return absl::OkStatus();
  }
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "ARCHITECTURE", "LAYERS", "CONTEXT", "PIPELINES", "RUNNING"}};
  for (const v1::Model& model : models.models()) {
    int n_ready = 0;
    int n_loading = 0;
    int n_running = 0;
    for (const v1::Pipeline& pipeline : model.pipelines()) {
      n_ready += pipeline.state() == v1::PIPELINE_STATE_READY;
      n_loading += pipeline.state() == v1::PIPELINE_STATE_LOADING;
      n_running += pipeline.running_count();
    }
    rows.push_back(
        {model.name(), model.architecture(), absl::StrCat(model.layer_count()),
         absl::StrCat(model.context_length()),
         n_loading > 0 ? absl::StrCat(n_ready, " and ", n_loading, " loading")
                       : absl::StrCat(n_ready),
         absl::StrCat(n_running)});
  }
  std::cout << TextTable(rows) << std::flush;
  return absl::OkStatus();
}

absl::Status Load(Client* client, const std::string& file,
                  const CallOptions& call) {
  v1::LoadModelRequest request;
  request.set_file(file);
  request.set_model(absl::GetFlag(FLAGS_load_name));
  // What is no number of stages the coordinator says best.
  if (absl::GetFlag(FLAGS_load_stages) != 0) {
    request.set_stage_count(absl::GetFlag(FLAGS_load_stages));
  }
  if (absl::GetFlag(FLAGS_load_kv_cache_tokens) != 0) {
    request.set_kv_cache_tokens(absl::GetFlag(FLAGS_load_kv_cache_tokens));
  }
  ASSIGN_OR_RETURN(const v1::LoadModelResponse response,
                   client->LoadModel(request, call));
  std::cout << "model " << response.model()
            << " takes requests once workers have loaded it; see tern status"
            << std::endl;
  return absl::OkStatus();
}

absl::Status Unload(Client* client, const std::string& model,
                    const CallOptions& call) {
  v1::UnloadModelRequest request;
  request.set_model(model);
  const absl::Duration timeout = absl::GetFlag(FLAGS_drain_timeout);
  request.mutable_drain_timeout()->set_seconds(absl::ToInt64Seconds(timeout));
  request.mutable_drain_timeout()->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(timeout % absl::Seconds(1))));
  ASSIGN_OR_RETURN(const v1::UnloadModelResponse response,
                   client->UnloadModel(request, call));
  std::cout << "model " << model << " is unloaded";
  if (response.ended_request_count() > 0) {
    std::cout << "; " << response.ended_request_count()
              << " answers were ended before their time";
  }
  std::cout << std::endl;
  return absl::OkStatus();
}

absl::Status Do(const std::vector<std::string>& words,
                const ClientOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  CallOptions call;
  call.cancellation = CancelledByUser();
  if (words.empty()) return List(client.get(), call);
  if (words[0] == "load") return Load(client.get(), words[1], call);
  return Unload(client.get(), words[1], call);
}

ExitCode Run(const Arguments& arguments) {
  const std::vector<std::string>& words = arguments.positional;
  if (!words.empty() && words[0] != "load" && words[0] != "unload") {
    return ReportUsage("models", absl::StrCat("there is no \"", words[0],
                                              "\"; it is load or unload"));
  }
  if (words.size() == 1 || words.size() > 2) {
    return ReportUsage("models", "name one model");
  }
  const ClientOptions options = ClientOptionsFromFlags();
  return Report(Do(words, options), options.server);
}

}  // namespace

Command ModelsCommand() {
  return {"models",
          "list, load and unload models",
          R"(usage: tern models [FLAGS]
       tern models load [FLAGS] FILE
       tern models unload [FLAGS] MODEL

Lists the models that the cluster serves. Loads a file of the coordinator's
--models_dir as one more; workers that have it too take it over, spare ones
first. Or ends to serve a model: requests in progress may end within
--drain_timeout, and its workers serve other models then. With TLS, both take a
certificate of tern-operator.
)",
          {"cli/models.cc", kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
