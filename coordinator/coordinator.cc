#include "coordinator/coordinator.h"

#include <algorithm>
#include <fstream>
#include <iterator>
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
#include "coordinator/cluster_service.h"
#include "coordinator/grpc_pipeline.h"
#include "coordinator/inference_service.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "model/chat_template.h"
#include "model/model_source.h"
#include "model/stage_plan.h"
#include "model/weights.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Tokens per KV block of this release's workers, which is checked when they
// load.
constexpr int kKvBlockSize = 16;

// More would wait for the disk, or for memory.
constexpr int kHashThreadsMax = 16;

// How long calls may take to end after the engine has ended their requests.
constexpr absl::Duration kShutdownGrace = absl::Seconds(5);

absl::Status CheckPositive(absl::string_view flag, int64_t value) {
  if (value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", value, "; it must be at least 1"));
}

absl::Status CheckOptions(const Coordinator::Options &options) {
  if (options.model_path.empty()) {
    return absl::InvalidArgumentError(
        "--model is missing: name a GGUF file, "
        "or a directory with safetensors");
  }
  if (options.head_mode != "int8" && options.head_mode != "stored") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--head_mode is ", options.head_mode, "; it must be int8 or stored"));
  }
  RETURN_IF_ERROR(BlobServiceImpl::Check(options.blobs));
  RETURN_IF_ERROR(CheckPositive("stages", options.n_stages));
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
  if (options.kv_cache_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_cache_tokens is ", options.kv_cache_tokens,
                     "; it must be at least 1, or 0 to choose by memory"));
  }
  if (options.lease < absl::Milliseconds(100) ||
      options.lease > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--lease is ", absl::FormatDuration(options.lease),
                     "; it must be in [100ms, 1h]"));
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

// A file that somebody named is one that has to be good.
absl::StatusOr<ChatTemplate> ReadChatTemplate(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::string source(std::istreambuf_iterator<char>(file), {});
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrCat("--chat_template: cannot read the file ", path));
  }
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Parse(source);
  if (!chat_template.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--chat_template=", path, ": ", chat_template.status().message()));
  }
  return chat_template;
}

}  // namespace

struct Coordinator::Services {
  Services(const ServiceContext &context,
           const BlobServiceImpl::Options &blob_options, BlobStore *contents)
      : inference(context),
        cluster(context),
        blobs(blob_options, contents, context.credentials, context.clock) {}
  InferenceServiceImpl inference;
  ClusterServiceImpl cluster;
  BlobServiceImpl blobs;
};

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(
    const Options &options) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto coordinator = std::unique_ptr<Coordinator>(new Coordinator);
  RETURN_IF_ERROR(coordinator->Start(options));
  return coordinator;
}

absl::Status Coordinator::Start(const Options &options) {
  ASSIGN_OR_RETURN(credentials_, Credentials::Create(options.credentials));
  Engine::Options engine;
  {
    // The model is needed no longer than this: the coordinator keeps no
    // weights. Its files stay open, to be sent.
    ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source,
                     ModelSource::Open(options.model_path));
    for (const std::string &warning : source->warnings()) {
      LOG(WARNING) << "event=model_warning model=" << options.model_path
                   << " warning=\"" << warning << "\"";
    }
    model_.config = source->config();
    ASSIGN_OR_RETURN(tokenizer_, source->LoadTokenizer());
    RETURN_IF_ERROR(LoadChat(options, *source));
    engine.model_fingerprint = source->fingerprint();
    ASSIGN_OR_RETURN(const DenseTensor head, source->FindHead());
    engine.placement.head_row_bytes = head.row_bytes();
    if (options.content_hash) {
      HashMemory memory(
          options.cache_dir.empty() ? "" : options.cache_dir + "/hashes");
      HashOptions hash;
      hash.n_threads = std::clamp<int>(std::thread::hardware_concurrency(), 1,
                                       kHashThreadsMax);
      hash.memory = &memory;
      ASSIGN_OR_RETURN(auto content, OpenModelContent(*source, hash));
      engine.content_id = content->content_id();
      contents_.Add(std::move(content));
    }
  }
  model_.name = options.model_name.empty() ? ModelNameOf(options.model_path)
                                           : options.model_name;
  if (model_.name.empty() || model_.name.size() > 255) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's name has ", model_.name.size(),
                     " bytes; give it one of 1 to 255 with --model_name"));
  }
  model_.tokenizer = tokenizer_.get();
  model_.head_mode = options.head_mode;

  engine.model = model_.name;
  engine.config = model_.config;
  engine.head_mode = options.head_mode;
  engine.placement.n_stages = options.n_stages;
  engine.placement.head_int8 = options.head_mode == "int8";
  engine.placement.kv_block_size = kKvBlockSize;
  engine.placement.kv_cache_tokens = options.kv_cache_tokens;
  engine.placement.max_sequences = options.max_sequences;
  engine.scheduler.max_step_tokens = options.max_step_tokens;
  engine.scheduler.max_sequences = options.max_sequences;
  engine.scheduler.max_waiting = options.max_queued_requests;
  engine.scheduler.max_waiting_tokens = options.max_queued_tokens;
  engine.scheduler.max_step_stretch = options.max_step_stretch;
  engine.scheduler.max_draft_tokens = options.max_draft_tokens;
  engine.scheduler.always_drafts = options.always_drafts;
  engine.scheduler.prefix_cache = options.prefix_cache;
  engine.cluster.lease_duration = options.lease;
  engine.hang_timeout = options.hang_timeout;
  engine.unavailable_after = options.unavailable_after;
  // Grows from one start of the coordinator to the next.
  engine.first_epoch = absl::ToUnixMillis(absl::Now());
  engine.on_readiness = [this](bool ready) { SetReadiness(ready); };
  // An impossible cut is better said now than when the workers are there.
  RETURN_IF_ERROR(PlanStages(model_.config, options.n_stages,
                             engine.placement.head_int8,
                             engine.placement.head_row_bytes)
                      .status());

  publisher_ = std::make_unique<Publisher>();
  engine_ = std::make_unique<Engine>(
      std::move(engine),
      [credentials = credentials_.get()](Pipeline::Spec spec,
                                         Pipeline::Listener listener) {
        return std::make_unique<GrpcPipeline>(std::move(spec),
                                              std::move(listener), credentials);
      },
      Clock::System());

  ServiceContext context;
  context.engine = engine_.get();
  context.publisher = publisher_.get();
  context.model = &model_;
  context.credentials = credentials_.get();
  context.clock = Clock::System();
  context.batch_window_max = options.max_queued_requests;
  context.kv_block_size = kKvBlockSize;
  services_ = std::make_unique<Services>(context, options.blobs, &contents_);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  RETURN_IF_ERROR(
      credentials_->AddListeningPort(options.listen, &builder, &port_));
  builder.RegisterService(&services_->inference);
  builder.RegisterService(&services_->cluster);
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
    health_->SetServingStatus("readiness", ready_);
  }
  LOG(INFO) << "event=coordinator_up port=" << port_ << " model=" << model_.name
            << " stages=" << options.n_stages
            << " head_mode=" << options.head_mode
            << " tls=" << credentials_->uses_tls();
  return absl::OkStatus();
}

absl::Status Coordinator::LoadChat(const Options &options,
                                   const ModelSource &source) {
  if (!options.chat_template_path.empty()) {
    ASSIGN_OR_RETURN(ChatTemplate chat_template,
                     ReadChatTemplate(options.chat_template_path));
    chat_ = std::make_unique<ChatEncoder>(std::move(chat_template),
                                          tokenizer_.get());
    model_.chat = chat_.get();
    return absl::OkStatus();
  }
  absl::StatusOr<ChatTemplate> chat_template =
      ChatTemplate::ForModel(source, *tokenizer_);
  if (chat_template.ok()) {
    chat_ = std::make_unique<ChatEncoder>(*std::move(chat_template),
                                          tokenizer_.get());
    model_.chat = chat_.get();
    return absl::OkStatus();
  }
  // Plain prompts need no template: whoever sends a conversation is told.
  const absl::string_view reason = chat_template.status().message();
  model_.no_chat = absl::StrCat(
      "this model takes no conversations: ", reason,
      "; send text, or start the coordinator with --chat_template=FILE");
  if (!absl::IsNotFound(chat_template.status())) {
    LOG(WARNING) << "event=no_chat model=" << options.model_path << " reason=\""
                 << reason << "\"";
  }
  return absl::OkStatus();
}

void Coordinator::SetReadiness(bool ready) {
  absl::MutexLock lock(&health_mu_);
  ready_ = ready;
  if (health_ != nullptr) health_->SetServingStatus("readiness", ready);
}

Coordinator::~Coordinator() { Shutdown(); }

void Coordinator::Shutdown() {
  absl::MutexLock lock(&mu_);
  // First the requests, whose calls then end by themselves; then the calls.
  if (engine_ != nullptr) engine_->Shutdown();
  if (server_ == nullptr) return;
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
