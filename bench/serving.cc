#include "bench/serving.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/cpu_times.h"
#include "cli/readiness.h"
#include "grpcpp/channel.h"
#include "nlohmann/json.hpp"
#include "util/credentials.h"
#include "util/status_macros.h"

namespace tern {

absl::StatusOr<v1::Model> AwaitModel(const ClientOptions& connection,
                                     const std::string& model,
                                     absl::Duration wait,
                                     Cancellation* cancellation) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(connection));
  RETURN_IF_ERROR(WaitUntilReady(client.get(), model, wait, cancellation));
  v1::GetModelRequest which;
  which.set_model(model);
  CallOptions call;
  call.cancellation = cancellation;
  ASSIGN_OR_RETURN(v1::GetModelResponse described,
                   client->GetModel(which, call));
  return std::move(*described.mutable_model());
}

absl::StatusOr<ServeReport> MeasureServing(ServingOptions options,
                                           Cancellation* cancellation) {
  ASSIGN_OR_RETURN(const v1::Model model,
                   AwaitModel(options.connection, options.model, options.wait,
                              cancellation));
  options.workload.model = model.name();
  options.workload.vocab_size = model.vocab_size();
  options.workload.context_length = model.context_length();
  RETURN_IF_ERROR(Workload::Check(options.workload));
  ASSIGN_OR_RETURN(const std::unique_ptr<Credentials> credentials,
                   Credentials::Create(options.connection.credentials));
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                   credentials->CreateChannel(options.connection.server,
                                              options.connection.peer_name));

  const pid_t pid = options.coordinator_pid;
  absl::StatusOr<CpuTimes> before = absl::UnknownError("not read");
  absl::StatusOr<CpuTimes> after = absl::UnknownError("not read");
  if (pid > 0) {
    RETURN_IF_ERROR(ReadCpuTimes(pid).status());
    options.load.on_begin = [&] { before = ReadCpuTimes(pid); };
    options.load.on_end = [&] { after = ReadCpuTimes(pid); };
  }
  ServeReport report = MakeReport(
      RunLoad(options.load, Workload(options.workload), channel, cancellation));
  report.settings = {
      {"model", absl::StrCat(model.name(), " (", model.numerics_id(), ") at ",
                             options.connection.server)}};
  if (before.ok() && after.ok()) {
    report.coordinator_cpu = CpuBetween(*before, *after);
  }
  return report;
}

absl::Status AddStages(const std::string& json, ServeReport* report) {
  if (json.empty()) return absl::OkStatus();
  const nlohmann::json stages = nlohmann::json::parse(json, nullptr, false);
  if (!stages.is_array()) {
    return absl::InternalError("mock_worker's statistics are no JSON list");
  }
  for (const nlohmann::json& stage : stages) {
    if (stage.value("steps", 0) == 0) continue;  // a spare
    report->stages.push_back(
        {stage.value("worker_id", ""), stage.value("steps", int64_t{0}),
         stage.value("tokens", int64_t{0}), stage.value("idle_share", 0.0)});
  }
  return absl::OkStatus();
}

}  // namespace tern
