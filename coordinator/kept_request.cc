#include "coordinator/kept_request.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "util/logging.h"

namespace tern {
namespace {

int64_t BytesOf(const std::vector<TokenLogprobs>& logprobs) {
  int64_t n = 0;
  for (const TokenLogprobs& one : logprobs) {
    n += sizeof(one) + sizeof(one.alternatives[0]) * one.alternatives.size();
  }
  return n;
}

int64_t BytesOf(const RequestLog& log) {
  int64_t n = 1024 + 4 * log.request.parameters.prompt.size() +
              log.request.echo.size() + BytesOf(log.prompt_logprobs);
  for (const RequestLog::Sample& sample : log.samples) {
    n += 4 * sample.tokens.size() + BytesOf(sample.logprobs);
  }
  return n;
}

}  // namespace

KeptRequest::KeptRequest(Context* context, std::shared_ptr<ModelInstance> model,
                         RequestLog log, int64_t number, absl::Time deadline,
                         absl::Time idle_since)
    : context_(context),
      model_(std::move(model)),
      request_(log.request),
      principal_(log.principal),
      resume_window_(log.resume_window),
      deadline_(deadline),
      first_ticket_(model_->engine()->NewTickets(log.request.sample_count)),
      taken_(log.request.sample_count),
      log_(std::move(log)),
      number_(number),
      is_admitted_(number > 0),
      is_cancelled_(request_.sample_count, false),
      idle_since_(idle_since) {
  CHECK(static_cast<int>(log_.samples.size()) == request_.sample_count);
  n_bytes_ = BytesOf(log_);
  log_.request = {};
}

void KeptRequest::Submit() {
  Engine::Request request;
  request.principal = principal_;
  request.request_id = request_.request_id;
  request.parameters = request_.parameters;
  request.parameters.sequence_class = SequenceClass::kInteractive;
  request.parameters.deadline = deadline_;
  const auto open_stream = [this](int index) {
    return std::make_shared<TokenStream>(
        [weak = std::weak_ptr<KeptRequest>(shared_from_this()), index] {
          if (const auto self = weak.lock()) self->OnTokens(index);
        });
  };
  for (int i = 0; i < request_.sample_count; ++i) {
    from_engine_.push_back(open_stream(i));
  }
  request.outputs = from_engine_;
  {
    absl::MutexLock lock(&mu_);
    if (log_.HasEnded()) return;
    if (is_admitted_) {
      Engine::Request::Restored& restored = request.restored.emplace();
      restored.numerics_id = log_.LatestNumericsId();
      restored.n_scored = static_cast<int>(log_.prompt_logprobs.size()) + 1;
      for (int i = 0; i < request_.sample_count; ++i) {
        const RequestLog::Sample& sample = log_.samples[i];
        restored.tokens.push_back(sample.tokens);
        if (sample.end.has_value()) request.outputs[i] = nullptr;
      }
    }
  }
  model_->engine()->Submit(first_ticket_, std::move(request));
}

int KeptRequest::Attach(const Streams& streams, bool is_stand_in) {
  CHECK(static_cast<int>(streams.size()) == request_.sample_count);
  Streams cut_off;
  int reader;
  {
    absl::MutexLock lock(&mu_);
    if (is_stand_in && has_reader_) return 0;
    cut_off.swap(to_reader_);
    reader = ++reader_;
    has_reader_ = !is_stand_in;
    // Before any other thread knows of them, so that what comes comes behind.
    for (int i = 0; i < request_.sample_count; ++i) {
      streams[i]->PushAll(Everything(i));
    }
    to_reader_ = streams;
  }
  for (const auto& stream : cut_off) {
    stream->Cut({absl::AbortedError(
        absl::StrCat("another ResumeGenerate has taken request ",
                     request_.request_id, " over"))});
  }
  return reader;
}

void KeptRequest::Detach(int reader) {
  bool goes_on = false;
  {
    absl::MutexLock lock(&mu_);
    if (reader != reader_) return;
    to_reader_.clear();
    if (!has_reader_) return;
    has_reader_ = false;
    goes_on = is_admitted_ && !is_dropped_ && !log_.HasEnded();
    if (!log_.HasEnded()) idle_since_ = context_->clock->Now();
  }
  if (goes_on && context_->on_left) context_->on_left(shared_from_this());
}

void KeptRequest::StopSample(int index) {
  std::vector<int64_t> tickets;
  {
    absl::MutexLock lock(&mu_);
    if (log_.samples[index].end.has_value()) return;
    End(index, {});
    tickets = Superfluous();
  }
  CancelAll(tickets);
}

void KeptRequest::Drop() {
  std::vector<int64_t> tickets;
  {
    absl::MutexLock lock(&mu_);
    is_dropped_ = true;
    tickets = Superfluous();
    if (number_ > 0 && context_->journal != nullptr) {
      context_->journal->Forget(number_);
    }
  }
  CancelAll(tickets);
}

KeptRequest::State KeptRequest::state() const {
  absl::MutexLock lock(&mu_);
  State state;
  state.has_ended = log_.HasEnded();
  state.is_refused = state.has_ended && !is_admitted_;
  for (const RequestLog::Sample& sample : log_.samples) {
    state.has_failed = state.has_failed ||
                       (sample.end.has_value() && !sample.end->status.ok());
  }
  state.idle_since =
      has_reader_ && !state.has_ended ? absl::InfiniteFuture() : idle_since_;
  state.number = number_;
  state.n_bytes = n_bytes_;
  for (const RequestLog::Sample& sample : log_.samples) {
    state.n_tokens.push_back(static_cast<int>(sample.tokens.size()));
  }
  return state;
}

void KeptRequest::OnTokens(int index) {
  TokenStream::Taken& taken = taken_[index];
  from_engine_[index]->Take(&taken);
  std::shared_ptr<TokenStream> reader;
  std::vector<int64_t> tickets;
  {
    absl::MutexLock lock(&mu_);
    if (taken.admitted && !is_admitted_) Admit(taken.numerics_id);
    // What comes behind a stop string is of no interest.
    if (log_.samples[index].end.has_value()) return;
    Append(index, taken);
    if (taken.end.has_value()) End(index, *taken.end);
    tickets = Superfluous();
    if (!to_reader_.empty()) reader = to_reader_[index];
  }
  CancelAll(tickets);
  if (reader != nullptr) reader->PushAll(std::move(taken));
}

void KeptRequest::Admit(const std::string& numerics_id) {
  is_admitted_ = true;
  log_.numerics_id = numerics_id;
  if (context_->journal == nullptr) return;
  number_ = context_->journal->NewNumber();
  auto admission = std::make_shared<RequestLog>(log_);
  admission->request = request_;
  admission->request.parameters.deadline = absl::InfiniteFuture();
  if (deadline_ < absl::InfiniteFuture()) {
    admission->request.parameters.deadline =
        absl::Now() + (deadline_ - context_->clock->Now());
  }
  JournalEvent event;
  event.kind = JournalEvent::Kind::kAdmission;
  event.admission = std::move(admission);
  Remember(std::move(event));
}

void KeptRequest::Append(int index, const TokenStream::Taken& taken) {
  RequestLog::Sample& sample = log_.samples[index];
  if (!taken.prompt_logprobs.empty()) {
    JournalEvent event;
    event.kind = JournalEvent::Kind::kPromptLogprobs;
    event.first = static_cast<int>(log_.prompt_logprobs.size());
    event.logprobs = taken.prompt_logprobs;
    Remember(std::move(event));
    log_.prompt_logprobs.insert(log_.prompt_logprobs.end(),
                                taken.prompt_logprobs.begin(),
                                taken.prompt_logprobs.end());
  }
  const int n_before = static_cast<int>(sample.tokens.size());
  if (!taken.tokens.empty()) {
    JournalEvent event;
    event.kind = JournalEvent::Kind::kTokens;
    event.sample_index = index;
    event.first = n_before;
    event.tokens = taken.tokens;
    event.logprobs = taken.logprobs;
    Remember(std::move(event));
    sample.tokens.insert(sample.tokens.end(), taken.tokens.begin(),
                         taken.tokens.end());
    sample.logprobs.insert(sample.logprobs.end(), taken.logprobs.begin(),
                           taken.logprobs.end());
  }
  for (const NumericsChange& change : taken.numerics_changes) {
    JournalEvent event;
    event.kind = JournalEvent::Kind::kNumerics;
    event.sample_index = index;
    event.first = n_before + change.n_tokens;
    event.numerics_id = change.numerics_id;
    sample.numerics_changes.push_back({event.first, event.numerics_id});
    Remember(std::move(event));
  }
  n_bytes_ += 4 * taken.tokens.size() + BytesOf(taken.logprobs) +
              BytesOf(taken.prompt_logprobs);
}

void KeptRequest::End(int index, const SequenceEnd& end) {
  log_.samples[index].end = end;
  if (log_.HasEnded()) idle_since_ = context_->clock->Now();
  if (context_->is_closing) return;
  JournalEvent event;
  event.kind = JournalEvent::Kind::kEnd;
  event.sample_index = index;
  event.end = end;
  Remember(std::move(event));
}

std::vector<int64_t> KeptRequest::Superfluous() {
  std::vector<int64_t> tickets;
  const bool all = is_dropped_ || log_.HasEnded();
  for (int i = 0; i < request_.sample_count; ++i) {
    if (is_cancelled_[i] || !(all || log_.samples[i].end.has_value())) continue;
    is_cancelled_[i] = true;
    tickets.push_back(first_ticket_ + i);
  }
  return tickets;
}

// Nothing happens to those that the engine itself has ended.
void KeptRequest::CancelAll(const std::vector<int64_t>& tickets) {
  for (const int64_t ticket : tickets) model_->engine()->Cancel(ticket);
}

// Never waits: under the lock, so that the journal hears it in order.
void KeptRequest::Remember(JournalEvent event) {
  if (number_ == 0 || context_->journal == nullptr || is_dropped_) return;
  event.number = number_;
  context_->journal->Tell(std::move(event));
}

TokenStream::Taken KeptRequest::Everything(int index) const {
  const RequestLog::Sample& sample = log_.samples[index];
  TokenStream::Taken all;
  all.admitted = is_admitted_;
  all.numerics_id = log_.numerics_id;
  if (index == 0) all.prompt_logprobs = log_.prompt_logprobs;
  all.tokens = sample.tokens;
  all.logprobs = sample.logprobs;
  all.numerics_changes = sample.numerics_changes;
  all.end = sample.end;
  return all;
}

}  // namespace tern
