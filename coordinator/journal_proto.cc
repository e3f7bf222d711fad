#include "coordinator/journal_proto.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/tern/v1/journal.pb.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Tokens of one event of an image.
constexpr size_t kTokensPerEvent = 1024;
constexpr int kSamplesMax = 16;

// A nonsensical value of a record whose checksum is right.
absl::Status Nonsense(absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat("the journal's record has ", what,
                   "; was it written by another release? Move the file away to "
                   "start without what it holds"));
}

void Describe(const TokenLogprobs& from, v1::JournalLogprob* to) {
  to->set_logprob(from.logprob);
  for (const auto& [id, logprob] : from.alternatives) {
    to->add_token_ids(id);
    to->add_logprobs(logprob);
  }
}

absl::StatusOr<TokenLogprobs> FromProto(const v1::JournalLogprob& from) {
  if (from.token_ids_size() != from.logprobs_size()) {
    return Nonsense("alternatives without log-probabilities");
  }
  TokenLogprobs to;
  to.logprob = from.logprob();
  for (int i = 0; i < from.token_ids_size(); ++i) {
    to.alternatives.emplace_back(from.token_ids(i), from.logprobs(i));
  }
  return to;
}

void Describe(const SamplerParameters& from, v1::JournalSampling* to) {
  to->set_temperature(from.temperature);
  to->set_top_k(from.top_k);
  to->set_top_p(from.top_p);
  to->set_min_p(from.min_p);
  to->set_seed(static_cast<int64_t>(from.seed));
  to->set_repetition_penalty(from.repetition_penalty);
  to->set_frequency_penalty(from.frequency_penalty);
  to->set_presence_penalty(from.presence_penalty);
  for (const auto& [id, bias] : from.logit_bias) {
    to->add_bias_token_ids(id);
    to->add_biases(bias);
  }
  to->set_logprobs(from.logprobs);
  to->set_prompt_logprobs(from.prompt_logprobs);
}

absl::StatusOr<SamplerParameters> FromProto(const v1::JournalSampling& from) {
  if (from.bias_token_ids_size() != from.biases_size()) {
    return Nonsense("logit biases without ids");
  }
  SamplerParameters to;
  to.temperature = from.temperature();
  to.top_k = from.top_k();
  to.top_p = from.top_p();
  to.min_p = from.min_p();
  to.seed = static_cast<uint64_t>(from.seed());
  to.repetition_penalty = from.repetition_penalty();
  to.frequency_penalty = from.frequency_penalty();
  to.presence_penalty = from.presence_penalty();
  for (int i = 0; i < from.biases_size(); ++i) {
    to.logit_bias.emplace_back(from.bias_token_ids(i), from.biases(i));
  }
  to.logprobs = from.logprobs();
  to.prompt_logprobs = from.prompt_logprobs();
  return to;
}

void Describe(const RequestLog& from, v1::JournalAdmission* to) {
  const CheckedRequest& request = from.request;
  const SequenceParameters& parameters = request.parameters;
  to->set_principal(from.principal);
  to->set_request_id(request.request_id);
  to->set_model(from.model);
  to->set_model_fingerprint(static_cast<int64_t>(from.model_fingerprint));
  to->set_numerics_id(from.numerics_id);
  to->set_resume_window_us(absl::ToInt64Microseconds(from.resume_window));
  if (parameters.deadline < absl::InfiniteFuture()) {
    to->set_deadline_us(absl::ToUnixMicros(parameters.deadline));
  }
  to->mutable_prompt_token_ids()->Add(parameters.prompt.begin(),
                                      parameters.prompt.end());
  Describe(parameters.sampler, to->mutable_sampling());
  to->mutable_stop_token_ids()->Add(parameters.stop_token_ids.begin(),
                                    parameters.stop_token_ids.end());
  for (const std::string& stop : request.stop_strings) {
    to->add_stop_strings(stop);
  }
  to->set_max_output_tokens(parameters.max_output_tokens);
  to->set_min_output_tokens(parameters.min_output_tokens);
  to->set_priority(parameters.priority);
  to->set_return_token_ids(request.return_token_ids);
  to->set_echo(request.echo);
  to->set_sample_count(request.sample_count);
}

absl::StatusOr<RequestLog> FromProto(const v1::JournalAdmission& from) {
  if (from.prompt_token_ids().empty() || from.max_output_tokens() < 1 ||
      from.sample_count() < 1 || from.sample_count() > kSamplesMax ||
      from.resume_window_us() <= 0 || from.request_id().empty()) {
    return Nonsense("an admission without prompt, name or limits");
  }
  RequestLog to;
  SequenceParameters& parameters = to.request.parameters;
  to.principal = from.principal();
  to.model = from.model();
  to.model_fingerprint = static_cast<uint64_t>(from.model_fingerprint());
  to.numerics_id = from.numerics_id();
  to.resume_window = absl::Microseconds(from.resume_window_us());
  if (from.deadline_us() != 0) {
    parameters.deadline = absl::FromUnixMicros(from.deadline_us());
  }
  parameters.prompt.assign(from.prompt_token_ids().begin(),
                           from.prompt_token_ids().end());
  ASSIGN_OR_RETURN(parameters.sampler, FromProto(from.sampling()));
  parameters.stop_token_ids.assign(from.stop_token_ids().begin(),
                                   from.stop_token_ids().end());
  parameters.max_output_tokens = from.max_output_tokens();
  parameters.min_output_tokens = from.min_output_tokens();
  parameters.priority = from.priority();
  to.request.request_id = from.request_id();
  to.request.stop_strings.assign(from.stop_strings().begin(),
                                 from.stop_strings().end());
  to.request.return_token_ids = from.return_token_ids();
  to.request.sample_count = from.sample_count();
  to.request.echo = from.echo();
  to.request.seed = from.sampling().seed();
  to.samples.resize(from.sample_count());
  return to;
}

void Describe(const JournalEvent& from, v1::JournalEvent* to) {
  switch (from.kind) {
    case JournalEvent::Kind::kEpoch:
      to->set_epoch(from.number);
      return;
    case JournalEvent::Kind::kAdmission:
      to->mutable_admission()->set_number(from.number);
      Describe(*from.admission, to->mutable_admission());
      return;
    case JournalEvent::Kind::kTokens: {
      v1::JournalTokens* tokens = to->mutable_tokens();
      tokens->set_number(from.number);
      tokens->set_sample_index(from.sample_index);
      tokens->set_first(from.first);
      tokens->mutable_token_ids()->Add(from.tokens.begin(), from.tokens.end());
      for (const TokenLogprobs& logprob : from.logprobs) {
        Describe(logprob, tokens->add_logprobs());
      }
      return;
    }
    case JournalEvent::Kind::kPromptLogprobs: {
      v1::JournalPromptLogprobs* prompt = to->mutable_prompt_logprobs();
      prompt->set_number(from.number);
      prompt->set_first(from.first);
      for (const TokenLogprobs& logprob : from.logprobs) {
        Describe(logprob, prompt->add_logprobs());
      }
      return;
    }
    case JournalEvent::Kind::kEnd: {
      v1::JournalEnd* end = to->mutable_end();
      end->set_number(from.number);
      end->set_sample_index(from.sample_index);
      end->set_code(static_cast<int>(from.end.status.code()));
      end->set_message(std::string(from.end.status.message()));
      end->set_by_length(from.end.reason == FinishReason::kLength);
      end->set_stop_token_id(from.end.stop_token_id);
      end->set_cached_prompt_token_count(from.end.n_prompt_cached);
      return;
    }
    case JournalEvent::Kind::kForgotten:
      to->set_forgotten_number(from.number);
      return;
    case JournalEvent::Kind::kNumerics: {
      v1::JournalNumerics* numerics = to->mutable_numerics();
      numerics->set_number(from.number);
      numerics->set_sample_index(from.sample_index);
      numerics->set_first(from.first);
      numerics->set_numerics_id(from.numerics_id);
      return;
    }
  }
}

// The answer that an event is about: null when the request is not known, which
// is no mistake.
absl::StatusOr<RequestLog::Sample*> FindSample(int64_t number, int index,
                                               absl::Time time,
                                               JournalImage* image) {
  const auto it = image->requests.find(number);
  if (it == image->requests.end()) return nullptr;
  RequestLog& log = it->second;
  if (index < 0 || index >= static_cast<int>(log.samples.size())) {
    return Nonsense("an answer that the request does not have");
  }
  log.changed_at = time;
  return &log.samples[index];
}

absl::Status Apply(const v1::JournalTokens& tokens, absl::Time time,
                   JournalImage* image) {
  ASSIGN_OR_RETURN(
      RequestLog::Sample* const sample,
      FindSample(tokens.number(), tokens.sample_index(), time, image));
  if (sample == nullptr || sample->end.has_value()) return absl::OkStatus();
  const RequestLog& log = image->requests.at(tokens.number());
  const bool wants_logprobs = log.request.parameters.sampler.logprobs >= 0;
  if (tokens.logprobs_size() !=
      (wants_logprobs ? tokens.token_ids_size() : 0)) {
    return Nonsense("tokens with too few or too many log-probabilities");
  }
  if (tokens.first() != static_cast<int>(sample->tokens.size()) ||
      sample->tokens.size() + tokens.token_ids_size() >
          static_cast<size_t>(log.request.parameters.max_output_tokens)) {
    return absl::OkStatus();
  }
  for (const v1::JournalLogprob& logprob : tokens.logprobs()) {
    ASSIGN_OR_RETURN(TokenLogprobs one, FromProto(logprob));
    sample->logprobs.push_back(std::move(one));
  }
  sample->tokens.insert(sample->tokens.end(), tokens.token_ids().begin(),
                        tokens.token_ids().end());
  return absl::OkStatus();
}

absl::Status Apply(const v1::JournalPromptLogprobs& prompt, absl::Time time,
                   JournalImage* image) {
  const auto it = image->requests.find(prompt.number());
  if (it == image->requests.end()) return absl::OkStatus();
  RequestLog& log = it->second;
  log.changed_at = time;
  const SequenceParameters& parameters = log.request.parameters;
  const size_t n_most =
      parameters.sampler.prompt_logprobs < 0 ? 0 : parameters.prompt.size() - 1;
  if (prompt.first() != static_cast<int>(log.prompt_logprobs.size()) ||
      log.prompt_logprobs.size() + prompt.logprobs_size() > n_most) {
    return absl::OkStatus();
  }
  for (const v1::JournalLogprob& logprob : prompt.logprobs()) {
    ASSIGN_OR_RETURN(TokenLogprobs one, FromProto(logprob));
    log.prompt_logprobs.push_back(std::move(one));
  }
  return absl::OkStatus();
}

absl::Status Apply(const v1::JournalEnd& end, absl::Time time,
                   JournalImage* image) {
  ASSIGN_OR_RETURN(RequestLog::Sample* const sample,
                   FindSample(end.number(), end.sample_index(), time, image));
  if (sample == nullptr || sample->end.has_value()) return absl::OkStatus();
  SequenceEnd& to = sample->end.emplace();
  to.status =
      absl::Status(static_cast<absl::StatusCode>(end.code()), end.message());
  to.reason = end.by_length() ? FinishReason::kLength : FinishReason::kStop;
  to.stop_token_id = end.stop_token_id();
  to.n_prompt_cached = end.cached_prompt_token_count();
  return absl::OkStatus();
}

absl::Status Apply(const v1::JournalNumerics& numerics, absl::Time time,
                   JournalImage* image) {
  ASSIGN_OR_RETURN(
      RequestLog::Sample* const sample,
      FindSample(numerics.number(), numerics.sample_index(), time, image));
  if (sample == nullptr || sample->end.has_value()) return absl::OkStatus();
  if (numerics.first() < 0) return Nonsense("a change before the first token");
  sample->numerics_changes.push_back(
      {numerics.first(), numerics.numerics_id()});
  return absl::OkStatus();
}

absl::Status Apply(const v1::JournalAdmission& admission, absl::Time time,
                   JournalImage* image) {
  if (admission.number() <= 0 ||
      image->requests.count(admission.number()) > 0) {
    return Nonsense("a request's number for the second time");
  }
  ASSIGN_OR_RETURN(RequestLog log, FromProto(admission));
  log.changed_at = time;
  image->last_number = std::max(image->last_number, admission.number());
  image->requests.emplace(admission.number(), std::move(log));
  return absl::OkStatus();
}

// The events that tell all about a request but its admission.
std::vector<JournalEvent> EventsOf(int64_t number, const RequestLog& log) {
  std::vector<JournalEvent> events;
  const auto add = [&events, number](JournalEvent::Kind kind) -> JournalEvent& {
    JournalEvent& event = events.emplace_back();
    event.kind = kind;
    event.number = number;
    return event;
  };
  const std::vector<TokenLogprobs>& prompt = log.prompt_logprobs;
  for (size_t i = 0; i < prompt.size(); i += kTokensPerEvent) {
    JournalEvent& event = add(JournalEvent::Kind::kPromptLogprobs);
    event.first = static_cast<int>(i);
    event.logprobs.assign(
        prompt.begin() + i,
        prompt.begin() + std::min(i + kTokensPerEvent, prompt.size()));
  }
  for (size_t index = 0; index < log.samples.size(); ++index) {
    const RequestLog::Sample& sample = log.samples[index];
    for (size_t i = 0; i < sample.tokens.size(); i += kTokensPerEvent) {
      const size_t end = std::min(i + kTokensPerEvent, sample.tokens.size());
      JournalEvent& event = add(JournalEvent::Kind::kTokens);
      event.sample_index = static_cast<int>(index);
      event.first = static_cast<int>(i);
      event.tokens.assign(sample.tokens.begin() + i,
                          sample.tokens.begin() + end);
      if (sample.logprobs.empty()) continue;
      event.logprobs.assign(sample.logprobs.begin() + i,
                            sample.logprobs.begin() + end);
    }
    for (const NumericsChange& change : sample.numerics_changes) {
      JournalEvent& event = add(JournalEvent::Kind::kNumerics);
      event.sample_index = static_cast<int>(index);
      event.first = change.n_tokens;
      event.numerics_id = change.numerics_id;
    }
    if (!sample.end.has_value()) continue;
    JournalEvent& event = add(JournalEvent::Kind::kEnd);
    event.sample_index = static_cast<int>(index);
    event.end = *sample.end;
  }
  return events;
}

}  // namespace

std::string EncodeRecord(absl::Time wall_time,
                         absl::Span<const JournalEvent> events) {
  v1::JournalRecord record;
  record.set_write_time_us(absl::ToUnixMicros(wall_time));
  for (const JournalEvent& event : events) {
    Describe(event, record.add_events());
  }
  return record.SerializeAsString();
}

absl::Status ApplyRecord(absl::string_view payload, JournalImage* image) {
  v1::JournalRecord record;
  if (!record.ParseFromArray(payload.data(),
                             static_cast<int>(payload.size()))) {
    return Nonsense("bytes that are no record");
  }
  const absl::Time time = absl::FromUnixMicros(record.write_time_us());
  image->written_at = std::max(image->written_at, time);
  for (const v1::JournalEvent& event : record.events()) {
    switch (event.event_case()) {
      case v1::JournalEvent::kEpoch:
        image->epoch = std::max(image->epoch, event.epoch());
        break;
      case v1::JournalEvent::kAdmission:
        RETURN_IF_ERROR(Apply(event.admission(), time, image));
        break;
      case v1::JournalEvent::kTokens:
        RETURN_IF_ERROR(Apply(event.tokens(), time, image));
        break;
      case v1::JournalEvent::kPromptLogprobs:
        RETURN_IF_ERROR(Apply(event.prompt_logprobs(), time, image));
        break;
      case v1::JournalEvent::kEnd:
        RETURN_IF_ERROR(Apply(event.end(), time, image));
        break;
      case v1::JournalEvent::kNumerics:
        RETURN_IF_ERROR(Apply(event.numerics(), time, image));
        break;
      case v1::JournalEvent::kForgottenNumber:
        image->requests.erase(event.forgotten_number());
        break;
      case v1::JournalEvent::EVENT_NOT_SET:
        return Nonsense("an event that this release does not know");
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> EncodeImage(const JournalImage& image) {
  std::vector<std::string> records;
  JournalEvent epoch;
  epoch.kind = JournalEvent::Kind::kEpoch;
  epoch.number = image.epoch;
  records.push_back(EncodeRecord(image.written_at, {epoch}));
  for (const auto& [number, log] : image.requests) {
    JournalEvent admission;
    admission.kind = JournalEvent::Kind::kAdmission;
    admission.number = number;
    // Borrowed for the moment: nobody keeps it.
    admission.admission = std::shared_ptr<const RequestLog>(
        std::shared_ptr<const RequestLog>(), &log);
    records.push_back(EncodeRecord(log.changed_at, {admission}));
    for (const JournalEvent& event : EventsOf(number, log)) {
      records.push_back(EncodeRecord(log.changed_at, {event}));
    }
  }
  return records;
}

}  // namespace tern
