#include "coordinator/generation.h"

#include <utility>

#include "util/logging.h"

namespace tern {

Generation::Generation(Engine* engine, const ServedModel* model,
                       CheckedRequest request)
    : engine_(engine),
      model_(model),
      ticket_(engine->NewTicket()),
      request_id_(std::move(request.request_id)),
      seed_(request.seed),
      n_prompt_(static_cast<int>(request.parameters.prompt.size())),
      return_token_ids_(request.return_token_ids),
      parameters_(std::move(request.parameters)),
      decoder_(model->tokenizer),
      scanner_(std::move(request.stop_strings)) {}

Generation::~Generation() { Cancel(); }

void Generation::Start(std::string principal, SequenceClass sequence_class,
                       absl::Time deadline, std::function<void()> wake) {
  CHECK(stream_ == nullptr);
  stream_ = std::make_shared<TokenStream>(std::move(wake));
  Engine::Request request;
  request.principal = std::move(principal);
  request.request_id = request_id_;
  request.parameters = std::move(parameters_);
  request.parameters.sequence_class = sequence_class;
  request.parameters.deadline = deadline;
  request.output = stream_;
  engine_->Submit(ticket_, std::move(request));
}

Generation::Piece Generation::Collect() {
  CHECK(stream_ != nullptr && !ended_);
  TokenStream::Taken taken = stream_->Take();
  Piece piece;
  piece.admitted = taken.admitted;
  numerics_id_ = taken.numerics_id;
  bool stop_string_found = false;
  for (size_t i = 0; i < taken.tokens.size() && !stop_string_found; ++i) {
    ++n_output_;
    const int32_t token = taken.tokens[i];
    if (taken.end.has_value() && taken.end->stop_token_id >= 0 &&
        i + 1 == taken.tokens.size()) {
      break;  // It stopped the answer and is no part of it.
    }
    piece.token_ids.push_back(token);
    stop_string_found = scanner_.Append(decoder_.Next(token), &piece.text);
  }
  if (taken.end.has_value() && !stop_string_found) {
    stop_string_found = scanner_.Append(decoder_.Finish(), &piece.text);
    scanner_.Finish(&piece.text);
  }
  if (stop_string_found) {
    // The engine may have run ahead; what it made beyond is dropped.
    Cancel();
    end_ = SequenceEnd();
  } else if (taken.end.has_value()) {
    ended_ = true;
    end_ = *std::move(taken.end);
  }
  piece.ended = ended_;
  piece.status = end_.status;
  piece.queue_full = end_.queue_full;
  return piece;
}

void Generation::Cancel() {
  if (ended_) return;
  ended_ = true;
  if (stream_ != nullptr) engine_->Cancel(ticket_);
}

v1::PromptInfo Generation::PromptInfo() const {
  v1::PromptInfo info;
  info.set_request_id(request_id_);
  info.set_model(model_->name);
  info.set_prompt_token_count(n_prompt_);
  info.set_seed(seed_);
  info.set_numerics_id(numerics_id_);
  return info;
}

v1::Usage Generation::Usage() const {
  v1::Usage usage;
  usage.set_prompt_token_count(n_prompt_);
  usage.set_output_token_count(n_output_);
  return usage;
}

void Generation::SetEnd(v1::Candidate* candidate) const {
  CHECK(ended_ && end_.status.ok());
  if (!scanner_.found().empty()) {
    candidate->set_finish_reason(v1::FINISH_REASON_STOP);
    candidate->set_stop_string(scanner_.found());
  } else if (end_.reason == FinishReason::kStop) {
    candidate->set_finish_reason(v1::FINISH_REASON_STOP);
    candidate->set_stop_token_id(end_.stop_token_id);
  } else {
    candidate->set_finish_reason(v1::FINISH_REASON_LENGTH);
  }
}

}  // namespace tern
