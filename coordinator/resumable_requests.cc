#include "coordinator/resumable_requests.h"

#include <pthread.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/generation.h"
#include "util/logging.h"

namespace tern {
namespace {

constexpr absl::Duration kLookAfterInterval = absl::Milliseconds(100);

// Reads a request while nobody else does, so that a stop string ends it then,
// too.
class StandInReader : public Publishable {
 public:
  explicit StandInReader(std::shared_ptr<KeptRequest> request)
      : generation_(std::move(request), {}) {}

  void Start(std::weak_ptr<StandInReader> self, Publisher* publisher) {
    absl::MutexLock lock(&mu_);
    is_reading_ = generation_.Attach(
        [self = std::move(self), publisher] {
          if (auto strong = self.lock()) publisher->Wake(std::move(strong));
        },
        /*is_stand_in=*/true);
  }

  void Publish() override {
    absl::MutexLock lock(&mu_);
    if (is_reading_) is_reading_ = !generation_.CollectForNobody();
  }

 private:
  absl::Mutex mu_;
  Generation generation_ ABSL_GUARDED_BY(mu_);
  bool is_reading_ ABSL_GUARDED_BY(mu_) = false;
};

absl::Status NameIsTaken(const std::string& request_id) {
  return absl::AlreadyExistsError(absl::StrCat(
      "request_id ", request_id,
      " belongs to a request in progress, or to one whose answer is kept; "
      "choose another, or resume or abort that one"));
}

// What makes no sense for the model that is served now; OK otherwise.
absl::Status CheckRestored(const RequestLog& log,
                           const ModelInstance& instance) {
  const ServedModel& model = instance.served();
  if (log.model_fingerprint != instance.fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrCat("request ", log.request.request_id,
                     " was begun with another file of the model ", log.model,
                     ", which would have gone on with other tokens: ask again, "
                     "or serve that file"));
  }
  const auto is_token = [&model](int32_t id) {
    return id >= 0 && id < model.config.vocab_size;
  };
  const std::vector<int32_t>& prompt = log.request.parameters.prompt;
  bool is_sane = std::all_of(prompt.begin(), prompt.end(), is_token) &&
                 static_cast<int64_t>(prompt.size()) +
                         log.request.parameters.max_output_tokens <=
                     model.config.context_length;
  for (const RequestLog::Sample& sample : log.samples) {
    is_sane = is_sane &&
              std::all_of(sample.tokens.begin(), sample.tokens.end(), is_token);
  }
  if (is_sane) return absl::OkStatus();
  return absl::DataLossError("the journal's request does not fit the model");
}

// Leaves of it what can be told to its caller, and why that is not more.
void Fail(const absl::Status& status, RequestLog* log) {
  LOG(WARNING) << "event=request_not_restored request_id="
               << log->request.request_id << " status=\"" << status << "\"";
  log->prompt_logprobs.clear();
  for (RequestLog::Sample& sample : log->samples) {
    sample = {};
    sample.end = {status};
  }
}

// Ends that the journal may not have got: what the last token says.
void EndByTokens(RequestLog* log) {
  for (RequestLog::Sample& sample : log->samples) {
    if (sample.end.has_value()) continue;
    Sequence sequence(1, log->request.parameters);
    for (size_t i = 0; i < sample.tokens.size(); ++i) {
      const Sequence::Ending ending = sequence.Append(sample.tokens[i]);
      if (!ending.ended) continue;
      sample.tokens.resize(i + 1);
      if (!sample.logprobs.empty()) sample.logprobs.resize(i + 1);
      sample.end = {absl::OkStatus(), ending.reason, ending.stop_token_id};
      break;
    }
  }
}

}  // namespace

ResumableRequests::ResumableRequests(Options options, Journal* journal,
                                     Publisher* publisher, Clock* clock)
    : options_(options), publisher_(publisher), clock_(clock) {
  context_.journal = journal;
  context_.clock = clock;
  context_.on_left = [this](const std::shared_ptr<KeptRequest>& request) {
    StandIn(request);
  };
  thread_ = std::thread([this] { Run(); });
}

ResumableRequests::~ResumableRequests() {
  Close();
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void ResumableRequests::Close() { context_.is_closing = true; }

void ResumableRequests::Restore(JournalImage image,
                                const ModelRegistry& models) {
  const absl::Time wall_now = absl::Now();
  int n_restored = 0;
  for (auto& [number, log] : image.requests) {
    EndByTokens(&log);
    // In progress it was alive as long as its coordinator.
    const absl::Duration idle =
        wall_now - (log.HasEnded() ? log.changed_at : image.written_at);
    const auto model = models.Find(log.model);
    const bool is_over = idle >= log.resume_window;
    if (is_over || !model.ok()) {
      LOG(INFO) << "event=request_not_restored request_id="
                << log.request.request_id
                << " reason=" << (is_over ? "window_over" : "model_not_served");
      context_.journal->Forget(number);
      continue;
    }
    const absl::Status status = CheckRestored(log, **model);
    if (!status.ok()) Fail(status, &log);
    RestoreOne(number, *model, std::move(log),
               std::max(idle, absl::ZeroDuration()));
    ++n_restored;
  }
  LOG(INFO) << "event=journal_restored requests=" << n_restored << " of "
            << image.requests.size();
}

void ResumableRequests::RestoreOne(int64_t number,
                                   std::shared_ptr<ModelInstance> model,
                                   RequestLog log, absl::Duration idle) {
  const absl::Time now = clock_->Now();
  absl::Time& wall_deadline = log.request.parameters.deadline;
  const absl::Time deadline = wall_deadline == absl::InfiniteFuture()
                                  ? absl::InfiniteFuture()
                                  : now + (wall_deadline - absl::Now());
  wall_deadline = absl::InfiniteFuture();
  const Name name(log.principal, log.request.request_id);
  const bool goes_on = !log.HasEnded();
  auto request =
      std::make_shared<KeptRequest>(&context_, std::move(model), std::move(log),
                                    number, deadline, now - idle);
  {
    absl::MutexLock lock(&mu_);
    requests_[name] = {request, nullptr};
  }
  request->Submit();
  if (goes_on) StandIn(request);
}

absl::StatusOr<std::shared_ptr<KeptRequest>> ResumableRequests::Begin(
    const std::string& principal, std::shared_ptr<ModelInstance> model,
    CheckedRequest request, absl::Duration resume_window, absl::Time deadline) {
  const Name name(principal, request.request_id);
  RequestLog log;
  log.principal = principal;
  log.resume_window = resume_window;
  log.model = model->name();
  log.model_fingerprint = model->fingerprint();
  log.samples.resize(request.sample_count);
  log.request = std::move(request);
  auto kept =
      std::make_shared<KeptRequest>(&context_, std::move(model), std::move(log),
                                    /*number=*/0, deadline, clock_->Now());
  absl::MutexLock lock(&mu_);
  Entry& place = requests_[name];
  // One that was never admitted has not taken the name.
  if (place.request != nullptr && !place.request->state().is_refused) {
    return NameIsTaken(name.second);
  }
  place = {kept, nullptr};
  return kept;
}

absl::StatusOr<std::shared_ptr<KeptRequest>> ResumableRequests::Find(
    const std::string& principal, const std::string& request_id) {
  absl::MutexLock lock(&mu_);
  const auto it = requests_.find({principal, request_id});
  if (it == requests_.end() || it->second.request->state().is_refused) {
    return absl::NotFoundError(absl::StrCat(
        "no request ", request_id,
        " of yours can be resumed: it never could, its resume_window is over, "
        "or the coordinator was restarted without a journal"));
  }
  return it->second.request;
}

absl::Status ResumableRequests::CheckIsFree(const std::string& principal,
                                            const std::string& request_id) {
  if (!Find(principal, request_id).ok()) return absl::OkStatus();
  return NameIsTaken(request_id);
}

bool ResumableRequests::Forget(const std::string& principal,
                               const std::string& request_id) {
  Entry entry;
  {
    absl::MutexLock lock(&mu_);
    const auto it = requests_.find({principal, request_id});
    if (it == requests_.end()) return false;
    entry = std::move(it->second);
    requests_.erase(it);
  }
  const KeptRequest::State state = entry.request->state();
  if (context_.journal != nullptr && state.number > 0) {
    context_.journal->Forget(state.number);
  }
  return !state.is_refused;
}

int ResumableRequests::size() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(requests_.size());
}

void ResumableRequests::Run() {
  pthread_setname_np(pthread_self(), "resumable");  // for top
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
        return stopping_ || !requests_.empty();
      };
      mu_.Await(absl::Condition(&has_work));
      mu_.AwaitWithTimeout(absl::Condition(&stopping_), kLookAfterInterval);
      if (stopping_) return;
    }
    LookAfter();
  }
}

void ResumableRequests::LookAfter() {
  if (context_.is_closing) return;
  const absl::Time now = clock_->Now();
  std::vector<Entry> dropped;
  {
    absl::MutexLock lock(&mu_);
    // Those that have ended, the latest first.
    std::vector<std::pair<absl::Time, Name>> ended;
    std::map<Name, int64_t> n_bytes;
    for (auto it = requests_.begin(); it != requests_.end();) {
      const KeptRequest& request = *it->second.request;
      const KeptRequest::State state = request.state();
      if (state.is_refused ||
          now - state.idle_since >= request.resume_window()) {
        dropped.push_back(std::move(it->second));
        it = requests_.erase(it);
        continue;
      }
      if (state.has_ended) {
        ended.emplace_back(state.idle_since, it->first);
        n_bytes[it->first] = state.n_bytes;
      }
      ++it;
    }
    std::sort(ended.rbegin(), ended.rend());
    int64_t n_total = 0;
    for (const auto& [time, name] : ended) {
      n_total += n_bytes[name];
      if (n_total <= options_.ended_bytes_max) continue;
      const auto it = requests_.find(name);
      dropped.push_back(std::move(it->second));
      requests_.erase(it);
    }
  }
  for (const Entry& entry : dropped) {
    KeptRequest& request = *entry.request;
    if (!request.state().has_ended) {
      LOG(INFO) << "event=request_dropped request_id="
                << request.request().request_id
                << " reason=nobody_came_back window="
                << absl::FormatDuration(request.resume_window());
    }
    request.Drop();
  }
}

void ResumableRequests::StandIn(const std::shared_ptr<KeptRequest>& request) {
  if (request->request().stop_strings.empty()) return;
  auto reader = std::make_shared<StandInReader>(request);
  reader->Start(reader, publisher_);
  std::shared_ptr<Publishable> before;  // ends without the lock
  absl::MutexLock lock(&mu_);
  const auto it =
      requests_.find({request->principal(), request->request().request_id});
  if (it == requests_.end() || it->second.request != request) return;
  before = std::move(it->second.stand_in);
  it->second.stand_in = std::move(reader);
}

}  // namespace tern
