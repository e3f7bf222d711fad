#include "coordinator/model_instance.h"

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "coordinator/placement.h"
#include "model/chat_template.h"
#include "model/weights.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// A file that somebody named is one that has to be good.
absl::StatusOr<ChatTemplate> ReadChatTemplate(const std::string& path) {
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

absl::StatusOr<std::shared_ptr<ModelInstance>> ModelInstance::Open(
    const ModelSpec& spec, const Hash& hash, Engine::Options common,
    PipelineFactory factory, Clock* clock) {
  auto instance = std::shared_ptr<ModelInstance>(new ModelInstance);
  RETURN_IF_ERROR(instance->Read(spec, hash, &common));
  instance->engine_ =
      std::make_unique<Engine>(std::move(common), std::move(factory), clock);
  return instance;
}

absl::Status ModelInstance::Read(const ModelSpec& spec, const Hash& hash,
                                 Engine::Options* engine) {
  {
    // The source is needed no longer than this: the coordinator keeps no
    // weights. Its files stay open where they were hashed, to be sent.
    ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source,
                     ModelSource::Open(spec.path));
    for (const std::string& warning : source->warnings()) {
      LOG(WARNING) << "event=model_warning model=" << spec.path << " warning=\""
                   << warning << "\"";
    }
    served_.config = source->config();
    ASSIGN_OR_RETURN(tokenizer_, source->LoadTokenizer());
    RETURN_IF_ERROR(LoadChat(spec, *source));
    fingerprint_ = source->fingerprint();
    engine->model_fingerprint = fingerprint_;
    ASSIGN_OR_RETURN(const DenseTensor head, source->FindHead());
    engine->placement.head_row_bytes = head.row_bytes();
    if (hash) {
      ASSIGN_OR_RETURN(content_, hash(*source));
      if (content_ != nullptr) engine->content_id = content_->content_id();
    }
  }
  served_.name = spec.name.empty() ? ModelNameOf(spec.path) : spec.name;
  if (served_.name.empty() || served_.name.size() > 255) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of the model ", spec.path, " has ",
                     served_.name.size(), " bytes; give it one of 1 to 255"));
  }
  served_.tokenizer = tokenizer_.get();
  served_.head_mode = spec.head_mode;
  n_stages_ = spec.layer_cuts.empty()
                  ? spec.n_stages
                  : static_cast<int>(spec.layer_cuts.size()) + 1;

  engine->model = served_.name;
  engine->config = served_.config;
  engine->head_mode = spec.head_mode;
  engine->placement.n_stages = spec.n_stages;
  engine->placement.layer_cuts = spec.layer_cuts;
  engine->placement.head_int8 = spec.head_mode == "int8";
  engine->placement.kv_block_size = kKvBlockSize;
  engine->placement.kv_cache_tokens = spec.kv_cache_tokens;
  // An impossible cut is better said now than when the workers are there.
  RETURN_IF_ERROR(CheckPlacementOptions(served_.config, engine->placement));
  engine->placement.n_stages = n_stages_;
  return absl::OkStatus();
}

absl::Status ModelInstance::LoadChat(const ModelSpec& spec,
                                     const ModelSource& source) {
  if (!spec.chat_template_path.empty()) {
    ASSIGN_OR_RETURN(ChatTemplate chat_template,
                     ReadChatTemplate(spec.chat_template_path));
    chat_ = std::make_unique<ChatEncoder>(std::move(chat_template),
                                          tokenizer_.get());
    served_.chat = chat_.get();
    return absl::OkStatus();
  }
  absl::StatusOr<ChatTemplate> chat_template =
      ChatTemplate::ForModel(source, *tokenizer_);
  if (chat_template.ok()) {
    chat_ = std::make_unique<ChatEncoder>(*std::move(chat_template),
                                          tokenizer_.get());
    served_.chat = chat_.get();
    return absl::OkStatus();
  }
  // Plain prompts need no template: whoever sends a conversation is told.
  const absl::string_view reason = chat_template.status().message();
  served_.no_chat = absl::StrCat(
      "this model takes no conversations: ", reason,
      "; send text, or start the coordinator with --chat_template=FILE");
  if (!absl::IsNotFound(chat_template.status())) {
    LOG(WARNING) << "event=no_chat model=" << spec.path << " reason=\""
                 << reason << "\"";
  }
  return absl::OkStatus();
}

}  // namespace tern
