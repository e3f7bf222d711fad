#include "coordinator/generation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/string_view.h"
#include "util/logging.h"

namespace tern {

Generation::Generation(Engine* engine, const ServedModel* model,
                       CheckedRequest request)
    : engine_(engine),
      model_(model),
      ticket_(engine->NewTickets(request.sample_count)),
      request_id_(std::move(request.request_id)),
      seed_(request.seed),
      n_prompt_(static_cast<int>(request.parameters.prompt.size())),
      return_token_ids_(request.return_token_ids),
      min_output_tokens_(request.parameters.min_output_tokens),
      echo_(std::move(request.echo)),
      parameters_(std::move(request.parameters)) {
  if (parameters_.sampler.prompt_logprobs >= 0) {
    scored_tokens_.assign(parameters_.prompt.begin() + 1,
                          parameters_.prompt.end());
  }
  for (int i = 0; i < request.sample_count; ++i) {
    samples_.emplace_back(model->tokenizer, request.stop_strings);
  }
}

Generation::Generation(std::shared_ptr<KeptRequest> kept,
                       const std::vector<int>& skip)
    : engine_(nullptr),
      kept_(std::move(kept)),
      model_(&kept_->model()),
      ticket_(0),
      request_id_(kept_->request().request_id),
      seed_(kept_->request().seed),
      n_prompt_(static_cast<int>(kept_->request().parameters.prompt.size())),
      return_token_ids_(kept_->request().return_token_ids),
      min_output_tokens_(kept_->request().parameters.min_output_tokens),
      echo_(kept_->request().echo) {
  const CheckedRequest& request = kept_->request();
  if (request.parameters.sampler.prompt_logprobs >= 0) {
    scored_tokens_.assign(request.parameters.prompt.begin() + 1,
                          request.parameters.prompt.end());
  }
  for (int i = 0; i < request.sample_count; ++i) {
    samples_.emplace_back(model_->tokenizer, request.stop_strings);
    if (skip.empty()) continue;
    samples_.back().n_skipped = skip[i];
    skips_prompt_ = skips_prompt_ || skip[i] > 0;
  }
}

Generation::~Generation() { Cancel(); }

void Generation::Start(std::string principal, SequenceClass sequence_class,
                       absl::Time deadline, std::function<void()> wake) {
  CHECK(!started_);
  started_ = true;
  Engine::Request request;
  request.principal = std::move(principal);
  request.request_id = request_id_;
  request.parameters = std::move(parameters_);
  request.parameters.sequence_class = sequence_class;
  request.parameters.deadline = deadline;
  for (Sample& sample : samples_) {
    sample.stream = std::make_shared<TokenStream>(wake);
    request.outputs.push_back(sample.stream);
  }
  engine_->Submit(ticket_, std::move(request));
}

bool Generation::Attach(std::function<void()> wake, bool is_stand_in) {
  CHECK(!started_ && kept_ != nullptr);
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (Sample& sample : samples_) {
    sample.stream = std::make_shared<TokenStream>(wake);
    streams.push_back(sample.stream);
  }
  reader_ = kept_->Attach(streams, is_stand_in);
  started_ = reader_ > 0;
  return started_;
}

Generation::Piece Generation::Collect(CandidateAt candidate) {
  CHECK(started_ && !ended_);
  Piece piece;
  bool all_ended = true;
  for (size_t i = 0; i < samples_.size(); ++i) {
    const int index = static_cast<int>(i);
    if (!samples_[i].ended) CollectSample(index, candidate(index), &piece);
    if (!piece.status.ok()) {
      // Without this candidate there is no answer.
      Cancel();
      break;
    }
    all_ended = all_ended && samples_[i].ended;
    // The first sample scores the prompt. What the others have to say waits in
    // their streams until that is done.
    if (n_scored_ < scored_tokens_.size()) {
      all_ended = false;
      break;
    }
  }
  piece.admitted = admitted_;
  ended_ = ended_ || all_ended;
  piece.ended = ended_;
  return piece;
}

bool Generation::CollectForNobody() {
  v1::Candidate candidate;
  return Collect([&candidate](int) { return &candidate; }).ended;
}

void Generation::CollectSample(int index, v1::Candidate* candidate,
                               Piece* piece) {
  Sample& sample = samples_[index];
  TokenStream::Taken& taken = sample.taken;
  sample.stream->Take(&taken);
  if (taken.admitted && !admitted_) {
    admitted_ = true;
    numerics_id_ = taken.numerics_id;
  }
  AddPromptLogprobs(taken.prompt_logprobs, piece);
  for (const NumericsChange& change : taken.numerics_changes) {
    sample.numerics_changes.push_back(
        {sample.n_output + change.n_tokens, change.numerics_id});
  }
  std::string* const text = candidate->mutable_text();
  if (!sample.begun && !taken.tokens.empty()) {
    sample.begun = true;
    if (sample.n_skipped == 0) text->append(echo_);
  }
  bool stop_string_found = false;
  for (size_t i = 0; i < taken.tokens.size() && !stop_string_found; ++i) {
    ++sample.n_output;
    if (taken.end.has_value() && taken.end->stop_token_id >= 0 &&
        i + 1 == taken.tokens.size()) {
      break;  // It stopped the answer and is no part of it.
    }
    const bool is_known = sample.n_output <= sample.n_skipped;
    if (!is_known) AddToken(taken, i, candidate);
    const std::string bytes = sample.decoder.Next(taken.tokens[i]);
    sample.known_text.clear();
    std::string* const out = is_known ? &sample.known_text : text;
    if (sample.n_output <= min_output_tokens_) {
      out->append(bytes);  // Too early to stop.
    } else {
      stop_string_found = sample.scanner.Append(bytes, out);
    }
  }
  if (kept_ != nullptr) candidate->set_output_token_count(sample.n_output);
  // What is held back of an answer that another stream goes on with comes
  // there.
  const bool is_over =
      taken.end.has_value() && (kept_ == nullptr || taken.end->status.ok());
  if (is_over && !stop_string_found) {
    stop_string_found = sample.scanner.Append(sample.decoder.Finish(), text);
    sample.scanner.Finish(text);
  }
  if (stop_string_found) {
    // The engine may have run ahead; what it made beyond is dropped.
    CancelSample(index);
  } else if (taken.end.has_value()) {
    sample.ended = true;
    sample.end = *std::move(taken.end);
    piece->status = sample.end.status;
    piece->retry_after = sample.end.retry_after;
  }
  if (sample.ended && sample.end.status.ok()) SetEnd(sample, candidate);
}

void Generation::AddPromptLogprobs(const std::vector<TokenLogprobs>& logprobs,
                                   Piece* piece) {
  CHECK(n_scored_ + logprobs.size() <= scored_tokens_.size());
  for (const TokenLogprobs& token : logprobs) {
    const int32_t id = scored_tokens_[n_scored_++];
    if (!skips_prompt_) piece->prompt_logprobs.push_back(LogprobOf(id, token));
  }
}

// Token `i`, in the forms that were asked for.
void Generation::AddToken(const TokenStream::Taken& taken, size_t i,
                          v1::Candidate* candidate) const {
  if (return_token_ids_) candidate->add_token_ids(taken.tokens[i]);
  if (taken.logprobs.empty()) return;
  *candidate->add_logprobs() = LogprobOf(taken.tokens[i], taken.logprobs[i]);
}

v1::TokenLogprob Generation::LogprobOf(int32_t token,
                                       const TokenLogprobs& logprobs) const {
  const auto bytes_of = [this](int32_t id) {
    const absl::string_view bytes = model_->tokenizer->TokenBytes(id);
    return std::string(bytes.data(), bytes.size());
  };
  v1::TokenLogprob out;
  out.set_token_id(token);
  out.set_piece(bytes_of(token));
  out.set_logprob(logprobs.logprob);
  for (const auto& [id, logprob] : logprobs.alternatives) {
    v1::TokenAlternative* alternative = out.add_alternatives();
    alternative->set_token_id(id);
    alternative->set_piece(bytes_of(id));
    alternative->set_logprob(logprob);
  }
  return out;
}

void Generation::Cancel() {
  if (ended_) return;
  ended_ = true;
  if (kept_ != nullptr) {
    if (started_) kept_->Detach(reader_);
    return;
  }
  for (size_t i = 0; i < samples_.size(); ++i) {
    CancelSample(static_cast<int>(i));
  }
}

void Generation::CancelSample(int index) {
  Sample& sample = samples_[index];
  if (sample.ended) return;
  sample.ended = true;
  if (kept_ != nullptr) {
    kept_->StopSample(index);
  } else if (started_) {
    engine_->Cancel(ticket_ + index);
  }
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
  int n_output = 0;
  for (const Sample& sample : samples_) n_output += sample.n_output;
  usage.set_output_token_count(n_output);
  // Of the first sample: the others may find what it has computed.
  usage.set_cached_prompt_token_count(samples_[0].end.n_prompt_cached);
  return usage;
}

std::vector<v1::NumericsChange> Generation::NumericsChanges() const {
  std::vector<v1::NumericsChange> changes;
  for (size_t i = 0; i < samples_.size(); ++i) {
    for (const NumericsChange& change : samples_[i].numerics_changes) {
      // Behind what ended it, nothing of it was given out.
      if (change.n_tokens >= samples_[i].n_output) continue;
      v1::NumericsChange& to = changes.emplace_back();
      to.set_candidate_index(static_cast<int>(i));
      to.set_output_token_count(change.n_tokens);
      to.set_numerics_id(change.numerics_id);
    }
  }
  return changes;
}

void Generation::SetEnd(const Sample& sample, v1::Candidate* candidate) {
  if (!sample.scanner.found().empty()) {
    candidate->set_finish_reason(v1::FINISH_REASON_STOP);
    candidate->set_stop_string(sample.scanner.found());
  } else if (sample.end.reason == FinishReason::kStop) {
    candidate->set_finish_reason(v1::FINISH_REASON_STOP);
    candidate->set_stop_token_id(sample.end.stop_token_id);
  } else {
    candidate->set_finish_reason(v1::FINISH_REASON_LENGTH);
  }
}

void SetSummary(const Generation& generation, v1::GenerateResponse* response) {
  *response->mutable_prompt_info() = generation.PromptInfo();
  *response->mutable_usage() = generation.Usage();
  for (v1::NumericsChange& change : generation.NumericsChanges()) {
    *response->add_numerics_changes() = std::move(change);
  }
}

v1::Candidate* CandidateOf(v1::GenerateResponse* response, int index) {
  while (response->candidates_size() <= index) {
    const int next = response->candidates_size();
    response->add_candidates()->set_index(next);
  }
  return response->mutable_candidates(index);
}

void MovePromptLogprobs(Generation::Piece* piece,
                        v1::GenerateResponse* response) {
  for (v1::TokenLogprob& token : piece->prompt_logprobs) {
    *response->add_prompt_logprobs() = std::move(token);
  }
  piece->prompt_logprobs.clear();
}

}  // namespace tern
