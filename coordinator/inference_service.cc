#include "coordinator/inference_service.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/batch_reactor.h"
#include "coordinator/generate_reactors.h"
#include "coordinator/model_registry.h"
#include "util/grpc_status.h"
#include "util/status_macros.h"

namespace tern {
namespace {

absl::Status TokenizeText(const ServedModel& model,
                          const v1::TokenizeRequest& request,
                          v1::TokenizeResponse* response) {
  RETURN_IF_ERROR(CheckText("text", request.text()));
  Tokenizer::EncodeOptions options;
  if (request.has_add_special()) options.add_bos = request.add_special();
  options.parse_special = request.parse_special();
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                   model.tokenizer->Encode(request.text(), options));
  for (const TokenId id : ids) {
    response->add_token_ids(id);
    const absl::string_view piece = model.tokenizer->TokenBytes(id);
    response->add_pieces(piece.data(), piece.size());
  }
  return absl::OkStatus();
}

absl::Status DetokenizeIds(const ServedModel& model,
                           const v1::DetokenizeRequest& request,
                           v1::DetokenizeResponse* response) {
  const auto& ids = request.token_ids();
  if (ids.size() > model.config.context_length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "token_ids has ", ids.size(), " entries; at most the context length, ",
        model.config.context_length, ", are taken"));
  }
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < model.config.vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token_ids[", i, "] is ", ids[i], "; it must be in [0, ",
                     model.config.vocab_size, ")"));
  }
  response->set_text(model.tokenizer->Decode(
      std::vector<TokenId>(ids.begin(), ids.end()), request.keep_special()));
  return absl::OkStatus();
}

v1::PipelineState StateOf(Engine::Phase phase) {
  switch (phase) {
    case Engine::Phase::kWaiting:
      return v1::PIPELINE_STATE_WAITING;
    case Engine::Phase::kLoading:
      return v1::PIPELINE_STATE_LOADING;
    case Engine::Phase::kReady:
      return v1::PIPELINE_STATE_READY;
  }
  return v1::PIPELINE_STATE_UNSPECIFIED;
}

void Describe(const Engine::PipelineStatus& pipeline, int kv_block_size,
              v1::Pipeline* out) {
  out->set_pipeline_id(pipeline.id);
  out->set_state(StateOf(pipeline.phase));
  out->set_kv_block_count(pipeline.kv_block_count);
  out->set_kv_block_in_use_count(pipeline.kv_block_in_use_count);
  out->set_kv_block_cached_count(pipeline.kv_block_cached_count);
  out->set_kv_block_size(kv_block_size);
  out->set_prefix_token_count(pipeline.counters.looked_up_tokens);
  out->set_prefix_cached_token_count(pipeline.counters.found_tokens);
  out->set_running_count(pipeline.n_running);
  out->set_draft_token_count(pipeline.counters.drafted_tokens);
  out->set_accepted_draft_token_count(pipeline.counters.accepted_draft_tokens);
  out->set_preemption_count(pipeline.counters.preemptions);
  out->set_refilled_token_count(pipeline.counters.refilled_tokens);
  out->set_keeps_boundary(pipeline.keeps_boundary);
  for (const Engine::StageStatus& from : pipeline.stages) {
    v1::Stage* stage = out->add_stages();
    stage->set_worker_id(from.placed.worker_id);
    stage->set_layer_begin(from.placed.range.layer_begin);
    stage->set_layer_end(from.placed.range.layer_end);
    stage->set_has_embedding(from.placed.range.has_embedding);
    stage->set_has_head(from.placed.range.has_head);
    stage->set_weight_bytes(from.info.weight_bytes);
    stage->set_kv_bytes(from.info.kv_bytes);
    stage->set_load_progress(static_cast<float>(from.load_progress));
  }
}

void Describe(const ServedModel& model, const Engine::Snapshot& snapshot,
              int kv_block_size, v1::Model* out) {
  out->set_name(model.name);
  out->set_architecture(model.config.architecture);
  out->set_layer_count(model.config.n_layers);
  out->set_hidden_size(model.config.hidden_size);
  out->set_vocab_size(model.config.vocab_size);
  out->set_context_length(model.config.context_length);
  const std::vector<TokenId>& end_ids = model.tokenizer->end_ids();
  out->mutable_end_of_sequence_ids()->Add(end_ids.begin(), end_ids.end());
  out->set_numerics_id(snapshot.numerics_id);
  out->set_head_mode(model.head_mode);
  out->set_has_chat_template(model.chat != nullptr);
  for (const Engine::PipelineStatus& pipeline : snapshot.pipelines) {
    Describe(pipeline, kv_block_size, out->add_pipelines());
  }
  if (snapshot.pipelines.empty()) {
    out->add_pipelines()->set_state(v1::PIPELINE_STATE_WAITING);
  }
}

void DescribeJournal(const ServiceContext& context, v1::Journal* out) {
  out->set_state(v1::JOURNAL_STATE_NONE);
  out->set_request_count(context.resumables->size());
  if (context.journal == nullptr) return;
  const Journal::Health health = context.journal->health();
  out->set_state(health.is_writing ? v1::JOURNAL_STATE_WRITING
                                   : v1::JOURNAL_STATE_GIVEN_UP);
  out->set_problem(health.problem);
  out->set_byte_count(health.n_bytes);
  out->set_lost_event_count(health.n_lost_events);
}

// Finishes `call` at once.
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* call,
                                 const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* InferenceServiceImpl::Generate(
    grpc::CallbackServerContext* call, const v1::GenerateRequest* request,
    v1::GenerateResponse* response) {
  return NewGenerateReactor(context_, call, request, response);
}

grpc::ServerWriteReactor<v1::StreamGenerateResponse>*
InferenceServiceImpl::StreamGenerate(grpc::CallbackServerContext* call,
                                     const v1::StreamGenerateRequest* request) {
  return NewStreamReactor(context_, call, request);
}

grpc::ServerWriteReactor<v1::StreamGenerateResponse>*
InferenceServiceImpl::ResumeGenerate(grpc::CallbackServerContext* call,
                                     const v1::ResumeGenerateRequest* request) {
  return NewResumeReactor(context_, call, request);
}

grpc::ServerBidiReactor<v1::BatchGenerateRequest, v1::BatchGenerateResponse>*
InferenceServiceImpl::BatchGenerate(grpc::CallbackServerContext* call) {
  return NewBatchReactor(context_, call);
}

grpc::ServerUnaryReactor* InferenceServiceImpl::Abort(
    grpc::CallbackServerContext* call, const v1::AbortRequest* request,
    v1::AbortResponse* response) {
  const absl::Status valid = CheckRequestId(request->request_id());
  if (!valid.ok()) return Answer(call, valid);
  const ModelRegistry::Models models = context_.models->AllInProgress();
  if (models.empty()) {
    return Answer(call, context_.models->Find("").status());
  }
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const std::string principal = context_.credentials->PrincipalOf(*call).name;
  // First the name, so that nobody resumes what is about to end.
  const bool was_kept =
      context_.resumables->Forget(principal, request->request_id());
  // A request is known by its id alone: whichever model it is for.
  struct Answers {
    absl::Mutex mu;
    size_t n_missing ABSL_GUARDED_BY(mu);
    absl::Status status ABSL_GUARDED_BY(mu);
  };
  auto answers = std::make_shared<Answers>();
  {
    absl::MutexLock lock(&answers->mu);
    answers->n_missing = models.size();
    answers->status = absl::NotFoundError("");
  }
  for (const auto& model : models) {
    model->engine()->Abort(
        principal, request->request_id(),
        [reactor, answers, was_kept](absl::Status status) {
          absl::MutexLock lock(&answers->mu);
          if (absl::IsNotFound(answers->status)) {
            answers->status = std::move(status);
          }
          if (--answers->n_missing > 0) return;
          // An answer that was kept is ended already.
          if (was_kept && absl::IsNotFound(answers->status)) {
            answers->status = absl::OkStatus();
          }
          reactor->Finish(ToGrpcStatus(answers->status));
        });
  }
  return reactor;
}

grpc::ServerUnaryReactor* InferenceServiceImpl::Tokenize(
    grpc::CallbackServerContext* call, const v1::TokenizeRequest* request,
    v1::TokenizeResponse* response) {
  const auto model = context_.models->Find(request->model());
  if (!model.ok()) return Answer(call, model.status());
  return Answer(call, TokenizeText((*model)->served(), *request, response));
}

grpc::ServerUnaryReactor* InferenceServiceImpl::Detokenize(
    grpc::CallbackServerContext* call, const v1::DetokenizeRequest* request,
    v1::DetokenizeResponse* response) {
  const auto model = context_.models->Find(request->model());
  if (!model.ok()) return Answer(call, model.status());
  return Answer(call, DetokenizeIds((*model)->served(), *request, response));
}

grpc::ServerUnaryReactor* InferenceServiceImpl::ListModels(
    grpc::CallbackServerContext* call, const v1::ListModelsRequest* request,
    v1::ListModelsResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  context_.models->Inspect(
      [this, reactor, response](const ModelRegistry::Snapshots& snapshots) {
        for (const auto& [model, snapshot] : snapshots) {
          Describe(model->served(), snapshot, context_.kv_block_size,
                   response->add_models());
        }
        DescribeJournal(context_, response->mutable_journal());
        reactor->Finish(grpc::Status::OK);
      });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceServiceImpl::GetModel(
    grpc::CallbackServerContext* call, const v1::GetModelRequest* request,
    v1::GetModelResponse* response) {
  const auto model = context_.models->Find(request->model());
  if (!model.ok()) return Answer(call, model.status());
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  (*model)->engine()->Inspect([this, reactor, response, model = *model](
                                  absl::StatusOr<Engine::Snapshot> snapshot) {
    if (snapshot.ok()) {
      Describe(model->served(), *snapshot, context_.kv_block_size,
               response->mutable_model());
      DescribeJournal(context_, response->mutable_journal());
    }
    reactor->Finish(ToGrpcStatus(snapshot.status()));
  });
  return reactor;
}

}  // namespace tern
