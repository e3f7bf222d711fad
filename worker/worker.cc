#include "worker/worker.h"

#include <unistd.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "blob/blob_service.h"
#include "blob/hash_memory.h"
#include "grpcpp/channel.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "model/step_times.h"
#include "util/clock.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/fetching_host.h"
#include "worker/grpc_stage_link.h"
#include "worker/grpc_weight_source.h"
#include "worker/machine.h"
#include "worker/model_cache.h"
#include "worker/packing_choice.h"
#include "worker/stage_host.h"
#include "worker/step_times_measurement.h"
#include "worker/thread_placement.h"
#include "worker/thread_pool.h"
#include "worker/topology.h"
#include "worker/weight_source.h"

namespace tern {
namespace {

constexpr double kMemoryShare = 0.8;
constexpr int kThreadsMax = 1024;
// After which nothing is measured a second time.
constexpr absl::Duration kMeasuringBudget = absl::Milliseconds(700);
// How long calls may take to end when the worker shuts down.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);

std::string HostName() {
  char name[256] = "";
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name;
}

std::string AdvertisedAddress(const Worker::Options& options, int port) {
  if (!options.advertise_address.empty()) return options.advertise_address;
  const size_t colon = options.listen.rfind(':');
  std::string host = options.listen.substr(0, colon);
  // Everything that listens on all addresses names none.
  if (host.empty() || host == "0.0.0.0" || host == "[::]" || host == "::") {
    host = HostName();
  }
  return absl::StrCat(host, ":", port);
}

absl::StatusOr<Isa> ChooseIsa(const std::string& name) {
  if (name == "auto") return BestKernels().isa;
  std::vector<absl::string_view> names;
  for (const Isa isa : SupportedIsas()) names.push_back(IsaName(isa));
  Isa isa;
  if (!ParseIsa(name, &isa) || !IsaSupported(isa)) {
    return absl::InvalidArgumentError(absl::StrCat("instruction set \"", name,
                                                   "\" is not to be had; this "
                                                   "machine has auto, ",
                                                   absl::StrJoin(names, ", ")));
  }
  return isa;
}

absl::StatusOr<ThreadPlacement> ChoosePlacement(const std::string& pin,
                                                int n_threads) {
  PinMode mode;
  if (!ParsePinMode(pin, &mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads cannot be pinned \"", pin, "\"; there are auto, on and off"));
  }
  ASSIGN_OR_RETURN(ThreadPlacement placement,
                   PlaceThreads(ThisProcessGrant(), n_threads, mode));
  LOG(INFO) << "event=threads_placed threads=" << n_threads << " placement=\""
            << Describe(placement) << "\"";
  return placement;
}

// The stage's own threads start later.
absl::StatusOr<TernaryPacking> ChooseWeightsPacking(
    const std::string& name, Isa isa, const ThreadPlacement& placement) {
  ThreadPool pool(placement);
  const ThreadPool::CallerBinding binding(pool);
  return ChoosePacking(name, KernelsFor(isa), &pool);
}

// Without them the coordinator goes by bytes.
StepTimes MeasureOrNot(const Worker::Options& options,
                       const ModelConfig& config, Isa isa,
                       TernaryPacking packing,
                       const ThreadPlacement& placement) {
  // The oracle's speed matters to nobody, and would take minutes to measure.
  if (!options.measure_step_times || isa == Isa::kRef) return {};
  ThreadPool pool(placement);
  const ThreadPool::CallerBinding binding(pool);
  const absl::Time begin = absl::Now();
  const absl::StatusOr<StepTimes> times = MeasureStepTimes(
      config, packing, KernelsFor(isa), &pool, kMeasuringBudget);
  if (!times.ok()) {
    LOG(WARNING) << "event=step_times_not_measured status=\""
                 << times.status().ToString() << "\"";
    return {};
  }
  LOG(INFO) << "event=step_times_measured layer_step_us="
            << times->layer_step_s * 1e6
            << " layer_token_us=" << times->layer_token_s * 1e6
            << " layer_context_ns=" << times->layer_context_s * 1e9
            << " head_step_us=" << times->head_step_s * 1e6
            << " head_row_us=" << times->head_row_s * 1e6
            << " took_ms=" << absl::ToInt64Milliseconds(absl::Now() - begin);
  return *times;
}

// None where the options name none, and a cache instead.
absl::StatusOr<FetchingHost::Models> OpenModels(
    const Worker::Options& options) {
  FetchingHost::Models models;
  for (const Worker::Options::ModelFile& file : options.models) {
    ASSIGN_OR_RETURN(std::shared_ptr<const ModelSource> source,
                     ModelSource::Open(file.path));
    for (const std::string& warning : source->warnings()) {
      LOG(WARNING) << "event=model_warning model=" << file.path << " warning=\""
                   << warning << "\"";
    }
    const std::string name =
        file.name.empty() ? ModelNameOf(file.path) : file.name;
    if (!models.emplace(name, std::move(source)).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "two models have the name \"", name, "\"; give them others"));
    }
  }
  if (models.empty() && options.cache.folder.empty()) {
    return absl::InvalidArgumentError(
        "the worker has neither a model's file nor a folder to fetch one into");
  }
  return models;
}

// Peers first, then the coordinator. Who cannot be reached by these credentials
// is left out.
std::vector<std::shared_ptr<WeightSource>> MakeSources(
    const StageRequest& request, const std::string& coordinators,
    const Credentials& credentials) {
  std::vector<std::shared_ptr<WeightSource>> sources;
  const auto add = [&](const std::string& address, const char* role) {
    absl::StatusOr<std::shared_ptr<WeightSource>> source =
        MakeGrpcWeightSource(address, role, credentials);
    if (source.ok()) {
      sources.push_back(*std::move(source));
    } else {
      LOG(WARNING) << "event=weights_source_refused address=" << address
                   << " status=\"" << source.status().ToString() << "\"";
    }
  };
  for (const std::string& address : request.weight_peer_addresses) {
    add(address, kWorkerName);
  }
  for (const absl::string_view address :
       absl::StrSplit(coordinators, ',', absl::SkipWhitespace())) {
    add(std::string(absl::StripAsciiWhitespace(address)), kCoordinatorName);
  }
  return sources;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const Options& options) {
  std::unique_ptr<Worker> worker(new Worker);
  RETURN_IF_ERROR(worker->Start(options));
  return worker;
}

Worker::~Worker() { Shutdown(); }

absl::Status Worker::Start(const Options& options) {
  if (options.n_threads < 0 || options.n_threads > kThreadsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.n_threads, " threads; 0 to ", kThreadsMax, " are possible"));
  }
  if (options.memory_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.memory_bytes, " bytes of memory"));
  }
  RETURN_IF_ERROR(BlobServiceImpl::Check(options.blobs));
  const int n_threads =
      options.n_threads > 0 ? options.n_threads : AvailableProcessors();
  ASSIGN_OR_RETURN(const Isa isa, ChooseIsa(options.isa));
  ASSIGN_OR_RETURN(const ThreadPlacement placement,
                   ChoosePlacement(options.pin, n_threads));
  ASSIGN_OR_RETURN(
      const TernaryPacking packing,
      ChooseWeightsPacking(options.weights_packing, isa, placement));
  ASSIGN_OR_RETURN(credentials_, Credentials::Create(options.credentials));
  ASSIGN_OR_RETURN(FetchingHost::Models models, OpenModels(options));
  hash_memory_ = std::make_unique<HashMemory>(
      options.cache.folder.empty() ? "" : options.cache.folder + "/hashes");
  if (!options.cache.folder.empty()) {
    ASSIGN_OR_RETURN(cache_, ModelCache::Create(options.cache));
  }

  if (!(options.link_bytes_per_second >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "links of ", options.link_bytes_per_second, " bytes a second"));
  }
  // Of a model to be fetched nothing is known yet, and the coordinator takes
  // them for those of any of several.
  const StepTimes step_times =
      models.size() != 1
          ? StepTimes()
          : MeasureOrNot(options, models.begin()->second->config(), isa,
                         packing, placement);
  slowdown_ = std::make_unique<Slowdown>(step_times);

  FetchingHost::Options fetching;
  std::vector<std::string> names;
  for (const auto& [name, source] : models) names.push_back(name);
  fetching.n_hash_threads = n_threads;
  fetching.fetch = options.fetch;
  StageHost::Options host;
  host.placement = placement;
  host.memory_bytes =
      options.memory_bytes > 0
          ? options.memory_bytes
          : static_cast<int64_t>(kMemoryShare * AvailableMemoryBytes());
  host.isa = isa;
  host.packing = packing;
  host.runner = options.runner;
  host.runner.slowdown = slowdown_.get();
  const Credentials* const credentials = credentials_.get();
  host_ = std::make_unique<FetchingHost>(
      fetching, std::move(models), cache_.get(), hash_memory_.get(),
      [credentials, host](const std::string& model_name,
                          std::shared_ptr<const ModelSource> model) {
        StageHost::Options with_name = host;
        with_name.model_name = model_name;
        return std::make_shared<StageHost>(
            with_name, std::move(model),
            [credentials](const StageRequest& request, int hidden_size) {
              return MakeGrpcLinks(request, hidden_size, *credentials);
            },
            Clock::System());
      },
      [credentials,
       coordinator = options.coordinator](const StageRequest& request) {
        return MakeSources(request, coordinator, *credentials);
      });
  service_ = std::make_unique<WorkerServiceImpl>(host_.get(), credentials,
                                                 Clock::System());

  blob_service_ = std::make_unique<BlobServiceImpl>(
      options.blobs, host_.get(), credentials, Clock::System());

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  RETURN_IF_ERROR(
      credentials_->AddListeningPort(options.listen, &builder, &port_));
  builder.RegisterService(service_.get());
  builder.RegisterService(blob_service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", options.listen, "; is the port taken?"));
  }
  grpc::HealthCheckServiceInterface* const health =
      server_->GetHealthCheckService();
  health->SetServingStatus("liveness", true);
  health->SetServingStatus("readiness", false);
  address_ = AdvertisedAddress(options, port_);

  WorkerDescription description;
  description.worker_id =
      options.worker_id.empty()
          ? absl::StrCat(HostName(), "-", static_cast<int64_t>(getpid()))
          : options.worker_id;
  description.incarnation =
      absl::Uniform<int64_t>(absl::BitGen(), 1, int64_t{1} << 62);
  description.address = address_;
  description.numerics_class = kCpuNumericsClass;
  description.memory_bytes = host.memory_bytes;
  description.thread_count = n_threads;
  description.kernel_isa = std::string(IsaName(isa));
  description.device = ProcessorName();
  description.thread_placement = Describe(placement);
  description.models = names;
  description.can_fetch_weights = cache_ != nullptr;
  description.packed_blocks = {BlockColumns(packing), BlockBytes(packing)};
  description.step_times = step_times;
  description.link_bytes_per_second = options.link_bytes_per_second;
  LOG(INFO) << "event=worker_started worker=" << description.worker_id
            << " address=" << address_
            << " models=" << absl::StrJoin(names, ",")
            << " cache_dir=" << options.cache.folder << " threads=" << n_threads
            << " memory_bytes=" << host.memory_bytes
            << " isa=" << description.kernel_isa
            << " packing=" << TernaryPackingName(packing);
  if (options.coordinator.empty()) return absl::OkStatus();
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (const absl::string_view address :
       absl::StrSplit(options.coordinator, ',')) {
    ASSIGN_OR_RETURN(channels.emplace_back(),
                     credentials_->CreateChannel(
                         std::string(absl::StripAsciiWhitespace(address)),
                         kCoordinatorName));
  }
  registration_ = std::make_unique<Registration>(
      options.registration, description, channels,
      [this] {
        return WorkDone{host_->finished_step_count(), host_->progress(),
                        slowdown_->factor()};
      },
      [health](bool is_registered) {
        health->SetServingStatus("readiness", is_registered);
      });
  return absl::OkStatus();
}

void Worker::Drain(absl::Duration timeout) {
  if (registration_ == nullptr || timeout <= absl::ZeroDuration()) return;
  const absl::Time begin = absl::Now();
  const bool released = registration_->Drain(timeout);
  LOG(INFO) << "event=drained released=" << released
            << " seconds=" << absl::ToDoubleSeconds(absl::Now() - begin);
}

void Worker::Shutdown() {
  registration_.reset();
  if (host_ != nullptr) {
    host_->Shutdown(absl::UnavailableError("the worker is shutting down"));
  }
  if (server_ != nullptr) {
    // Calls that do not end by themselves are cancelled after the grace time.
    server_->Shutdown(std::chrono::system_clock::now() +
                      absl::ToChronoNanoseconds(kShutdownGrace));
    server_->Wait();
  }
  server_.reset();
  service_.reset();
  blob_service_.reset();
  host_.reset();
}

}  // namespace tern
