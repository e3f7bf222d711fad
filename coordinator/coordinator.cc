#include "coordinator/coordinator.h"

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "blob/blob_service.h"
#include "blob/blob_store.h"
#include "blob/content_hash.h"
#include "blob/hash_memory.h"
#include "blob/model_content.h"
#include "coordinator/admin_service.h"
#include "coordinator/cluster_service.h"
#include "coordinator/engine.h"
#include "coordinator/grpc_pipeline.h"
#include "coordinator/inference_service.h"
#include "coordinator/kept_kv.h"
#include "coordinator/kept_kv_file.h"
#include "coordinator/kept_kv_proto.h"
#include "coordinator/operator_store.h"
#include "coordinator/service_context.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "model/model_source.h"
#include "util/clock.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// More would wait for the disk, or for memory.
constexpr int kHashThreadsMax = 16;

// How long calls may take to end after the engine has ended their requests.
constexpr absl::Duration kShutdownGrace = absl::Seconds(5);

absl::Status CheckPositive(absl::string_view flag, int64_t value) {
  if (value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", value, "; it must be at least 1"));
}

absl::Status CheckSpec(const ModelSpec& spec) {
  if (spec.head_mode != "int8" && spec.head_mode != "stored") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--head_mode is ", spec.head_mode, "; it must be int8 or stored"));
  }
  if (spec.kv_cache_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_cache_tokens is ", spec.kv_cache_tokens,
                     "; it must be at least 1, or 0 to choose by memory"));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const Coordinator::Options& options) {
  if (options.models.empty() && options.models_dir.empty()) {
    return absl::InvalidArgumentError(
        "--model is missing: name a GGUF file, or a directory with "
        "safetensors; or give --models_dir, and load models by call");
  }
  RETURN_IF_ERROR(CheckSpec(options.defaults));
  for (const ModelSpec& spec : options.models) {
    RETURN_IF_ERROR(CheckSpec(spec));
  }
  if (options.journal_sync != "none" && options.journal_sync != "batch") {
    return absl::InvalidArgumentError(
        absl::StrCat("--journal_sync is ", options.journal_sync,
                     "; it must be none or batch"));
  }
  if (options.journal_max_bytes < (1 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--journal_max_bytes is ", options.journal_max_bytes,
                     "; it must be at least 1048576"));
  }
  RETURN_IF_ERROR(BlobServiceImpl::Check(options.blobs));
  RETURN_IF_ERROR(CheckPositive("max_sequences", options.max_sequences));
  RETURN_IF_ERROR(
      CheckPositive("max_queued_requests", options.max_queued_requests));
  RETURN_IF_ERROR(
      CheckPositive("max_queued_tokens", options.max_queued_tokens));
  RETURN_IF_ERROR(CheckPositive("max_step_tokens", options.max_step_tokens));
  // Written so that NaN fails.
  if (!(options.max_step_stretch >= 1 && options.max_step_stretch <= 1000)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_step_stretch is ", options.max_step_stretch,
                     "; it must be in [1, 1000]"));
  }
  if (options.max_draft_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--max_draft_tokens is ",
                                                   options.max_draft_tokens,
                                                   "; it must be at least 0"));
  }
  if (options.lease < absl::Milliseconds(100) ||
      options.lease > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--lease is ", absl::FormatDuration(options.lease),
                     "; it must be in [100ms, 1h]"));
  }
  if (BoundaryKeeping keeping;
      !ParseBoundaryKeeping(options.keep_boundary, &keeping)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--keep_boundary is \"", options.keep_boundary,
                     "\"; it must be never, auto or always"));
  }
  if (options.recut.interval < absl::ZeroDuration() ||
      !(options.recut.min_gain >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--recut_interval is ", absl::FormatDuration(options.recut.interval),
        " and --recut_gain ", options.recut.min_gain,
        "; neither may be negative"));
  }
  if (options.hang_timeout < absl::Milliseconds(100)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--hang_timeout is ", absl::FormatDuration(options.hang_timeout),
        "; it must be at least 100ms, or inf"));
  }
  if (options.unavailable_after < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--unavailable_after is negative");
  }
  return absl::OkStatus();
}

}  // namespace

struct Coordinator::Services {
  Services(const ServiceContext& context, AdminServiceImpl::Options options,
           const BlobServiceImpl::Options& blob_options, BlobStore* contents)
      : inference(context),
        cluster(context),
        admin(context, std::move(options)),
        blobs(blob_options, contents, context.credentials, context.clock) {}
  InferenceServiceImpl inference;
  ClusterServiceImpl cluster;
  AdminServiceImpl admin;
  BlobServiceImpl blobs;
};

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(
    const Options& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto coordinator = std::unique_ptr<Coordinator>(new Coordinator);
  RETURN_IF_ERROR(coordinator->Start(options));
  return coordinator;
}

absl::Status Coordinator::Start(const Options& options) {
  ASSIGN_OR_RETURN(credentials_, Credentials::Create(options.credentials));
  // Grows from one start of the coordinator to the next, even where the clock
  // does not if there is a journal.
  int64_t last_epoch = absl::ToUnixMillis(absl::Now());
  JournalImage image;
  if (!options.journal_dir.empty()) {
    Journal::Options journal;
    journal.folder = options.journal_dir;
    journal.sync = options.journal_sync == "batch" ? Journal::Sync::kBatch
                                                   : Journal::Sync::kNone;
    journal.bytes_max = options.journal_max_bytes;
    ASSIGN_OR_RETURN(journal_, Journal::Open(journal, &image));
    last_epoch = std::max(last_epoch, image.epoch);
    ASSIGN_OR_RETURN(operators_, OperatorStore::Open(options.journal_dir));
    journal_dir_ = options.journal_dir;
  }
  last_epoch_ = std::make_shared<std::atomic<int64_t>>(last_epoch);
  publisher_ = std::make_unique<Publisher>();
  models_ = std::make_unique<ModelRegistry>();
  for (const ModelSpec& spec : options.models) {
    ASSIGN_OR_RETURN(std::shared_ptr<ModelInstance> model,
                     OpenModel(options, spec));
    RETURN_IF_ERROR(models_->Add(std::move(model)));
  }
  workers_ = std::make_unique<WorkerRouter>(
      WorkerRouter::Options(), models_.get(),
      operators_ == nullptr ? std::set<std::string>()
                            : operators_->state().cordoned);

  resumables_ = std::make_unique<ResumableRequests>(
      ResumableRequests::Options(), journal_.get(), publisher_.get(),
      Clock::System());

  ServiceContext context;
  context.models = models_.get();
  context.workers = workers_.get();
  context.resumables = resumables_.get();
  context.journal = journal_.get();
  context.operators = operators_.get();
  context.publisher = publisher_.get();
  context.credentials = credentials_.get();
  context.clock = Clock::System();
  context.batch_window_max = options.max_queued_requests;
  context.kv_block_size = kKvBlockSize;
  AdminServiceImpl::Options admin;
  admin.models_dir = options.models_dir;
  admin.defaults = options.defaults;
  admin.open = [this, options](const ModelSpec& spec) {
    return OpenModel(options, spec);
  };
  services_ = std::make_unique<Services>(context, std::move(admin),
                                         options.blobs, &contents_);

  // Before anyone can ask for them.
  services_->admin.Restore();
  if (!journal_dir_.empty()) RestoreKept();
  if (journal_ != nullptr) resumables_->Restore(std::move(image), *models_);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  RETURN_IF_ERROR(
      credentials_->AddListeningPort(options.listen, &builder, &port_));
  builder.RegisterService(&services_->inference);
  builder.RegisterService(&services_->cluster);
  builder.RegisterService(&services_->admin);
  builder.RegisterService(&services_->blobs);
  {
    absl::MutexLock lock(&mu_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return absl::UnavailableError(absl::StrCat(
          "cannot listen on ", options.listen, "; is the port taken?"));
    }
    absl::MutexLock health_lock(&health_mu_);
    health_ = server_->GetHealthCheckService();
    health_->SetServingStatus("", true);
    health_->SetServingStatus("liveness", true);
    health_->SetServingStatus("readiness", n_ready_ > 0);
  }
  LOG(INFO) << "event=coordinator_up port=" << port_
            << " models=" << options.models.size()
            << " tls=" << credentials_->uses_tls();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ModelInstance>> Coordinator::OpenModel(
    const Options& options, const ModelSpec& spec) {
  Engine::Options engine;
  engine.placement.max_sequences = options.max_sequences;
  CHECK(ParseBoundaryKeeping(options.keep_boundary,
                             &engine.placement.keep_boundary));
  engine.scheduler.max_step_tokens = options.max_step_tokens;
  engine.scheduler.max_sequences = options.max_sequences;
  engine.scheduler.max_waiting = options.max_queued_requests;
  engine.scheduler.max_waiting_tokens = options.max_queued_tokens;
  engine.scheduler.max_step_stretch = options.max_step_stretch;
  engine.scheduler.max_draft_tokens = options.max_draft_tokens;
  engine.scheduler.always_drafts = options.always_drafts;
  engine.scheduler.prefix_cache = options.prefix_cache;
  engine.cluster.lease_duration = options.lease;
  engine.recut = options.recut;
  engine.hang_timeout = options.hang_timeout;
  engine.unavailable_after = options.unavailable_after;
  engine.allow_numerics_change = options.allow_numerics_change;
  engine.last_epoch = last_epoch_;
  if (journal_ != nullptr) {
    engine.on_epoch = [this](int64_t epoch) { journal_->TellEpoch(epoch); };
  }
  engine.on_readiness = [this](bool ready) { AddReady(ready ? 1 : -1); };
  const auto hash = [this, &options](const ModelSource& source)
      -> absl::StatusOr<std::shared_ptr<const ModelContent>> {
    if (!options.content_hash) return std::shared_ptr<const ModelContent>();
    HashMemory memory(
        options.cache_dir.empty() ? "" : options.cache_dir + "/hashes");
    HashOptions hashing;
    hashing.n_threads = std::clamp<int>(std::thread::hardware_concurrency(), 1,
                                        kHashThreadsMax);
    hashing.memory = &memory;
    hashing.cancelled = [this] { return models_->is_shut_down(); };
    return OpenModelContent(source, hashing);
  };
  ASSIGN_OR_RETURN(
      std::shared_ptr<ModelInstance> instance,
      ModelInstance::Open(
          spec, hash, std::move(engine),
          [credentials = credentials_.get()](Pipeline::Spec pipeline,
                                             Pipeline::Listener listener) {
            return std::make_unique<GrpcPipeline>(
                std::move(pipeline), std::move(listener), credentials);
          },
          Clock::System()));
  if (instance->content() != nullptr) contents_.Add(instance->content());
  return instance;
}

void Coordinator::AddReady(int change) {
  absl::MutexLock lock(&health_mu_);
  n_ready_ += change;
  if (health_ != nullptr) health_->SetServingStatus("readiness", n_ready_ > 0);
}

void Coordinator::RestoreKept() {
  std::vector<KeptKvOfModel> all = TakeKeptKvFile(journal_dir_);
  for (const auto& model : models_->All()) {
    std::vector<KeptKv> kept;
    for (KeptKvOfModel& each : all) {
      if (each.model == model->name() &&
          each.fingerprint == model->fingerprint()) {
        kept.push_back(std::move(each.kept));
      }
    }
    if (!kept.empty()) model->engine()->RestoreKept(std::move(kept));
  }
}

void Coordinator::WriteKept() {
  std::vector<KeptKvOfModel> all;
  for (const auto& model : models_->All()) {
    for (KeptKv& kept : model->engine()->TakeKept()) {
      all.push_back({model->name(), model->fingerprint(), std::move(kept)});
    }
  }
  if (all.empty()) return;
  const absl::Status status = WriteKeptKvFile(journal_dir_, all);
  if (!status.ok()) {
    LOG(WARNING) << "event=kept_kv_not_written status=" << status;
  }
}

Coordinator::~Coordinator() { Shutdown(); }

void Coordinator::Shutdown() {
  absl::MutexLock lock(&mu_);
  // First the requests, whose calls then end by themselves; then the calls.
  if (resumables_ != nullptr) resumables_->Close();
  if (models_ != nullptr) models_->Shutdown();
  if (server_ == nullptr) return;
  if (!journal_dir_.empty()) WriteKept();
  {
    absl::MutexLock health_lock(&health_mu_);
    health_ = nullptr;  // The server is about to take it away.
  }
  server_->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownGrace));
  server_->Wait();
  server_.reset();
  LOG(INFO) << "event=coordinator_down port=" << port_;
}

}  // namespace tern
