// mock_worker: workers without weights, to measure all of a cluster but the
// arithmetic. See kUsage.

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/mock_stage.h"
#include "bench/mock_stage_host.h"
#include "grpcpp/channel.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "model/model_source.h"
#include "nlohmann/json.hpp"
#include "util/clock.h"
#include "util/credential_flags.h"
#include "util/credentials.h"
#include "util/logging.h"
#include "util/server_main.h"
#include "util/status_macros.h"
#include "worker/grpc_stage_link.h"
#include "worker/registration.h"
#include "worker/stage_backend.h"
#include "worker/worker_service.h"

ABSL_FLAG(std::string, coordinator, "127.0.0.1:7600",
          "Address of the coordinator.");
ABSL_FLAG(std::string, model, "",
          "Required. The model that the coordinator serves. Only its headers "
          "are read.");
ABSL_FLAG(std::string, model_name, "",
          "Name of the model in the cluster. Empty: the path's last part, "
          "without .gguf.");
ABSL_FLAG(int, workers, 1,
          "Workers that this process plays, each on a free port of its own.");
ABSL_FLAG(std::string, listen_host, "127.0.0.1",
          "Address to listen on, without a port.");
ABSL_FLAG(std::string, worker_id, "mock",
          "Names of the workers, followed by -0, -1 and so on.");
ABSL_FLAG(int64_t, memory_bytes, int64_t{1} << 40,
          "Bytes that weights and KV cache are said to have.");
ABSL_FLAG(double, step_us, 2000,
          "Time of the whole model for a step, in microseconds.");
ABSL_FLAG(double, token_us, 10, "For each token of the step, added to that.");
ABSL_FLAG(double, context_ns, 10,
          "For each position that a token attends to, in nanoseconds.");
ABSL_FLAG(double, stage_share, 0,
          "Part of the model's time that each stage takes. 0: 1 / stages.");
ABSL_FLAG(bool, by_layers, false,
          "Whether each layer takes its part of the time, in place of each "
          "stage, and the coordinator is told so.");
ABSL_FLAG(double, slowdown, 1,
          "How many times as long as stated steps take. Heartbeats say so.");
ABSL_FLAG(int, answer_tokens, 0,
          "End answers with a stop token after so many tokens. 0: never.");
ABSL_FLAG(int, link_width, 1,
          "Numbers that stages pass on for each token. A real stage passes the "
          "model's hidden size.");
ABSL_FLAG(std::string, stats_file, "",
          "File to write at the end: what each stage did (JSON). Empty: none.");

namespace tern {
namespace {

constexpr char kUsage[] =
    R"(mock_worker: workers without weights, to measure coordinator and network.

Registers with a coordinator and takes plans like a worker, checks them like
one, and answers when a stated model of cost says that a stage would have:

  share * (step_us + tokens * token_us + positions attended to * context_ns)

Tokens depend on seed and position alone; none stops an answer unless
--answer_tokens says so.
)";

constexpr absl::Duration kShutdownGrace = absl::Seconds(2);

// One of the workers.
class MockWorker {
 public:
  static absl::StatusOr<std::unique_ptr<MockWorker>> Start(
      const MockStageHost::Options& options, const std::string& worker_id,
      const Credentials* credentials) {
    std::unique_ptr<MockWorker> worker(new MockWorker(worker_id));
    RETURN_IF_ERROR(worker->Init(options, credentials));
    return worker;
  }

  ~MockWorker() {
    registration_.reset();
    host_->Shutdown(absl::UnavailableError("the worker is shutting down"));
    if (server_ == nullptr) return;
    server_->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownGrace));
    server_->Wait();
  }

  const std::string& worker_id() const { return worker_id_; }
  StageUse use() const { return host_->use(); }

 private:
  explicit MockWorker(std::string worker_id)
      : worker_id_(std::move(worker_id)) {}

  absl::Status Init(const MockStageHost::Options& options,
                    const Credentials* credentials) {
    host_ = std::make_unique<MockStageHost>(
        options, [credentials](const StageRequest& request, int link_width) {
          return MakeGrpcLinks(request, link_width, *credentials);
        });
    service_ = std::make_unique<WorkerServiceImpl>(host_.get(), credentials,
                                                   Clock::System());
    const std::string listen_host = absl::GetFlag(FLAGS_listen_host);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kMessageBytesMax);
    RETURN_IF_ERROR(credentials->AddListeningPort(
        absl::StrCat(listen_host, ":0"), &builder, &port));
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", listen_host));
    }
    WorkerDescription description;
    description.worker_id = worker_id_;
    description.incarnation =
        absl::Uniform<int64_t>(absl::BitGen(), 1, int64_t{1} << 62);
    description.address = absl::StrCat(listen_host, ":", port);
    // Its answers are nobody else's.
    description.numerics_class = "mock";
    description.memory_bytes = absl::GetFlag(FLAGS_memory_bytes);
    description.thread_count = 1;
    description.kernel_isa = "none";
    description.device = "mock";
    description.models = {options.model};
    const double slowdown = absl::GetFlag(FLAGS_slowdown);
    if (options.layer_share > 0) {
      // What it would measure at its start, before it became slow.
      const double share = options.layer_share / slowdown;
      description.step_times.layer_step_s =
          absl::ToDoubleSeconds(options.cost.per_step) * share;
      description.step_times.layer_token_s =
          absl::ToDoubleSeconds(options.cost.per_token) * share;
      description.step_times.layer_context_s =
          absl::ToDoubleSeconds(options.cost.per_context) * share;
    }
    ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                     credentials->CreateChannel(
                         absl::GetFlag(FLAGS_coordinator), kCoordinatorName));
    registration_ = std::make_unique<Registration>(
        Registration::Options(), description,
        std::vector<std::shared_ptr<grpc::Channel>>{std::move(channel)},
        [host = host_.get(), slowdown] {
          return WorkDone{host->finished_step_count(),
                          host->finished_step_count(), slowdown};
        },
        [](bool) {});
    return absl::OkStatus();
  }

  const std::string worker_id_;
  std::unique_ptr<MockStageHost> host_;
  std::unique_ptr<WorkerServiceImpl> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Registration> registration_;
};

absl::Status CheckFlags() {
  if (absl::GetFlag(FLAGS_model).empty()) {
    return absl::InvalidArgumentError(
        "--model is required: the file or directory that the coordinator has");
  }
  const auto check = [](absl::string_view flag, double value, double least,
                        double most) -> absl::Status {
    // Written so that NaN fails it.
    if (value >= least && value <= most) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("--", flag, " is ", value,
                                                   "; it must be in [", least,
                                                   ", ", most, "]"));
  };
  RETURN_IF_ERROR(check("workers", absl::GetFlag(FLAGS_workers), 1, 256));
  RETURN_IF_ERROR(check("step_us", absl::GetFlag(FLAGS_step_us), 0, 1e7));
  RETURN_IF_ERROR(check("token_us", absl::GetFlag(FLAGS_token_us), 0, 1e6));
  RETURN_IF_ERROR(check("context_ns", absl::GetFlag(FLAGS_context_ns), 0, 1e6));
  RETURN_IF_ERROR(check("stage_share", absl::GetFlag(FLAGS_stage_share), 0, 1));
  RETURN_IF_ERROR(check("slowdown", absl::GetFlag(FLAGS_slowdown), 0.1, 100));
  RETURN_IF_ERROR(
      check("answer_tokens", absl::GetFlag(FLAGS_answer_tokens), 0, 1 << 30));
  RETURN_IF_ERROR(
      check("link_width", absl::GetFlag(FLAGS_link_width), 1, 1 << 16));
  return check("memory_bytes",
               static_cast<double>(absl::GetFlag(FLAGS_memory_bytes)), 1, 1e18);
}

absl::StatusOr<MockStageHost::Options> OptionsFromFlags() {
  RETURN_IF_ERROR(CheckFlags());
  const std::string path = absl::GetFlag(FLAGS_model);
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source,
                   ModelSource::Open(path));
  MockStageHost::Options options;
  options.model = absl::GetFlag(FLAGS_model_name);
  if (options.model.empty()) options.model = ModelNameOf(path);
  options.vocab_size = source->config().vocab_size;
  options.context_length = source->config().context_length;
  options.model_fingerprint = source->fingerprint();
  options.cost.per_step = absl::Microseconds(absl::GetFlag(FLAGS_step_us));
  options.cost.per_token = absl::Microseconds(absl::GetFlag(FLAGS_token_us));
  options.cost.per_context = absl::Nanoseconds(absl::GetFlag(FLAGS_context_ns));
  options.cost.per_step *= absl::GetFlag(FLAGS_slowdown);
  options.cost.per_token *= absl::GetFlag(FLAGS_slowdown);
  options.cost.per_context *= absl::GetFlag(FLAGS_slowdown);
  options.stage_share = absl::GetFlag(FLAGS_stage_share);
  if (absl::GetFlag(FLAGS_by_layers)) {
    options.layer_share = 1.0 / source->config().n_layers;
  }
  options.answer_tokens = absl::GetFlag(FLAGS_answer_tokens);
  options.link_width = absl::GetFlag(FLAGS_link_width);
  return options;
}

absl::Status WriteStats(const std::vector<std::unique_ptr<MockWorker>>& workers,
                        const std::string& path) {
  nlohmann::json stages = nlohmann::json::array();
  for (const auto& worker : workers) {
    const StageUse use = worker->use();
    stages.push_back({{"worker_id", worker->worker_id()},
                      {"steps", use.n_steps},
                      {"tokens", use.n_tokens},
                      {"busy_s", absl::ToDoubleSeconds(use.busy)},
                      {"span_s", absl::ToDoubleSeconds(use.span)},
                      {"idle_share", use.idle_share()}});
    LOG(INFO) << "event=stage_use worker=" << worker->worker_id()
              << " steps=" << use.n_steps << " tokens=" << use.n_tokens
              << " idle_share=" << use.idle_share();
  }
  if (path.empty()) return absl::OkStatus();
  std::ofstream file(path);
  file << stages.dump(2) << "\n";
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

absl::Status Run() {
  ASSIGN_OR_RETURN(const MockStageHost::Options options, OptionsFromFlags());
  ASSIGN_OR_RETURN(const std::unique_ptr<Credentials> credentials,
                   Credentials::Create(CredentialOptionsFromFlags()));
  std::vector<std::unique_ptr<MockWorker>> workers;
  for (int i = 0; i < absl::GetFlag(FLAGS_workers); ++i) {
    ASSIGN_OR_RETURN(
        std::unique_ptr<MockWorker> worker,
        MockWorker::Start(options,
                          absl::StrCat(absl::GetFlag(FLAGS_worker_id), "-", i),
                          credentials.get()));
    workers.push_back(std::move(worker));
  }
  const int signal = WaitForShutdownSignal();
  LOG(INFO) << "event=shutdown signal=" << signal;
  return WriteStats(workers, absl::GetFlag(FLAGS_stats_file));
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  tern::ParseServerFlags(argc, argv, tern::kUsage,
                         {"bench/mock_worker.cc", tern::kCredentialFlagsFile});
  tern::BlockShutdownSignals();
  const absl::Status status = tern::Run();
  if (status.ok()) return EXIT_SUCCESS;
  LOG(ERROR) << "event=failed status=\"" << status.ToString() << "\"";
  return EXIT_FAILURE;
}
