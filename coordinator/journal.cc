#include "coordinator/journal.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "coordinator/record_file.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kFileName[] = "requests.journal";

// Events of one record: with the log-probabilities of a whole step each, they
// still fit it.
constexpr size_t kEventsPerRecord = 256;

// How often it says that it lives while there is something to remember: whose
// time to come back is over depends on when the coordinator died.
constexpr absl::Duration kSignOfLife = absl::Seconds(1);

int64_t BytesOf(const std::vector<TokenLogprobs>& logprobs) {
  int64_t n = 0;
  for (const TokenLogprobs& one : logprobs)
    n += 8 + 8 * one.alternatives.size();
  return n;
}

// About what an event takes in the file.
int64_t BytesOf(const JournalEvent& event) {
  int64_t n = 24 + 3 * event.tokens.size() + BytesOf(event.logprobs);
  if (event.admission != nullptr) {
    const CheckedRequest& request = event.admission->request;
    n += 150 + 3 * request.parameters.prompt.size() + request.echo.size() +
         9 * request.parameters.sampler.logit_bias.size();
  }
  return n;
}

}  // namespace

Journal::Journal(Options options)
    : options_(std::move(options)),
      path_(absl::StrCat(options_.folder, "/", kFileName)),
      queue_(options_.queue_capacity) {}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(Options options,
                                                       JournalImage* image) {
  if (!options.write) options.write = ::write;
  if (!options.wall_now) options.wall_now = absl::Now;
  auto journal = std::unique_ptr<Journal>(new Journal(std::move(options)));
  *image = {};
  const absl::StatusOr<int64_t> valid =
      ReadRecords(journal->path_, [image](absl::string_view payload) {
        return ApplyRecord(payload, image);
      });
  if (valid.ok()) {
    struct stat file;
    if (stat(journal->path_.c_str(), &file) == 0 && file.st_size > *valid) {
      LOG(WARNING) << "event=journal_tail_cut file=" << journal->path_
                   << " at=" << *valid << " bytes=" << file.st_size - *valid;
    }
  } else if (!absl::IsNotFound(valid.status())) {
    return valid.status();
  }
  RETURN_IF_ERROR(journal->Begin(*image));
  return journal;
}

absl::Status Journal::Begin(const JournalImage& image) {
  last_number_ = image.last_number;
  if (mkdir(options_.folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return Failed("cannot make the folder");
  }
  RETURN_IF_ERROR(WriteAnew(image));
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

Journal::~Journal() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
  if (fd_ >= 0) close(fd_);
}

void Journal::Tell(JournalEvent event) {
  ++n_told_;
  if (!given_up_ && queue_.TryPush(std::move(event))) return;
  ++n_lost_;
  if (!given_up_ && !queue_.closed()) {
    GiveUp(absl::ResourceExhaustedError(
        absl::StrCat(path_, ": the disk does not keep up, ",
                     options_.queue_capacity, " events wait to be written")));
  }
  absl::MutexLock lock(&mu_);
  ++n_done_;
}

void Journal::TellEpoch(int64_t epoch) {
  JournalEvent event;
  event.kind = JournalEvent::Kind::kEpoch;
  event.number = epoch;
  Tell(std::move(event));
}

void Journal::Forget(int64_t number) {
  JournalEvent event;
  event.kind = JournalEvent::Kind::kForgotten;
  event.number = number;
  Tell(std::move(event));
}

Journal::Health Journal::health() const {
  Health health;
  health.n_lost_events = n_lost_;
  absl::MutexLock lock(&mu_);
  health.is_writing = problem_.empty();
  health.problem = problem_;
  health.n_bytes = file_bytes_;
  return health;
}

void Journal::Flush() {
  const int64_t n_told = n_told_;
  absl::MutexLock lock(&mu_);
  const auto is_done = [this, n_told]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return n_done_ >= n_told;
  };
  mu_.Await(absl::Condition(&is_done));
}

void Journal::Run() {
  pthread_setname_np(pthread_self(), "journal");  // for top
  std::vector<JournalEvent> events;
  for (;;) {
    events.clear();
    if (!queue_.PopAll(&events, kSignOfLife)) {
      if (queue_.closed()) return;
      if (bytes_of_.empty()) continue;
    }
    if (!given_up_) {
      absl::Status status = Write(events);
      if (status.ok()) status = MayRewrite();
      if (!status.ok()) GiveUp(status);
    }
    if (given_up_) n_lost_ += events.size();
    absl::MutexLock lock(&mu_);
    n_done_ += events.size();
    file_bytes_ = n_bytes_;
  }
}

absl::Status Journal::Write(const std::vector<JournalEvent>& events) {
  const absl::Span<const JournalEvent> all(events);
  written_at_ = options_.wall_now();
  std::string bytes;
  size_t begin = 0;
  do {
    AppendRecord(
        EncodeRecord(written_at_, all.subspan(begin, kEventsPerRecord)),
        &bytes);
    begin += kEventsPerRecord;
  } while (begin < all.size());
  RETURN_IF_ERROR(WriteBytes(fd_, bytes));
  n_bytes_ += bytes.size();
  for (const JournalEvent& event : events) Account(event);
  return Sync();
}

absl::Status Journal::WriteBytes(int fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        options_.write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Failed("cannot write");
    done += n;
  }
  return absl::OkStatus();
}

absl::Status Journal::Sync() {
  if (options_.sync == Sync::kBatch && fdatasync(fd_) != 0) {
    return Failed("cannot force to the disk");
  }
  return absl::OkStatus();
}

void Journal::Account(const JournalEvent& event) {
  if (event.kind == JournalEvent::Kind::kEpoch) return;
  if (event.kind == JournalEvent::Kind::kForgotten) {
    const auto it = bytes_of_.find(event.number);
    if (it == bytes_of_.end()) return;
    n_live_bytes_ -= it->second;
    bytes_of_.erase(it);
    return;
  }
  if (event.kind != JournalEvent::Kind::kAdmission &&
      !bytes_of_.contains(event.number)) {
    return;  // What comes behind a forgotten request counts for nothing.
  }
  const int64_t n = BytesOf(event);
  bytes_of_[event.number] += n;
  n_live_bytes_ += n;
}

absl::Status Journal::MayRewrite() {
  const bool is_full = n_bytes_ > options_.bytes_max;
  // Not again and again where the estimate of what lives is off.
  const bool is_worth_it = n_bytes_ > options_.rewrite_bytes_min &&
                           n_bytes_ > 2 * n_live_bytes_ &&
                           n_bytes_ > 2 * n_bytes_anew_;
  if (!is_full && !is_worth_it) return absl::OkStatus();
  RETURN_IF_ERROR(Rewrite());
  // Twice its size is what it takes to be written anew.
  if (n_bytes_ > options_.bytes_max / 2 && is_full) {
    return absl::ResourceExhaustedError(absl::StrCat(
        path_, ": the requests in it take ", n_bytes_,
        " bytes, more than half of the limit of ", options_.bytes_max,
        "; raise --journal_max_bytes, or ask for shorter resume windows"));
  }
  return absl::OkStatus();
}

absl::Status Journal::Rewrite() {
  JournalImage image;
  RETURN_IF_ERROR(ReadRecords(path_, [&image](absl::string_view payload) {
                    return ApplyRecord(payload, &image);
                  }).status());
  return WriteAnew(image);
}

// A file with what `image` has takes the place of the one there is: whoever
// dies meanwhile leaves the old one.
absl::Status Journal::WriteAnew(const JournalImage& image) {
  const std::string unfinished = absl::StrCat(path_, ".new");
  const int fd =
      open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return Failed("cannot make a new file");
  int64_t n_bytes = 0;
  const auto write = [&]() -> absl::Status {
    std::string bytes(kRecordFileMagic.data(), kRecordFileMagic.size());
    for (const std::string& record : EncodeImage(image)) {
      AppendRecord(record, &bytes);
      if (bytes.size() < (1 << 20)) continue;
      RETURN_IF_ERROR(WriteBytes(fd, bytes));
      n_bytes += bytes.size();
      bytes.clear();
    }
    RETURN_IF_ERROR(WriteBytes(fd, bytes));
    n_bytes += bytes.size();
    if (fdatasync(fd) != 0) return Failed("cannot force to the disk");
    if (std::rename(unfinished.c_str(), path_.c_str()) != 0) {
      return Failed("cannot put the new file into its place");
    }
    return absl::OkStatus();
  };
  const absl::Status status = write();
  if (!status.ok()) {
    close(fd);
    unlink(unfinished.c_str());
    return status;
  }
  // The name, too.
  const int folder = open(options_.folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
  n_bytes_ = n_bytes_anew_ = n_bytes;
  bytes_of_.clear();
  n_live_bytes_ = 0;
  // A share of the file each; nobody forgets a part of a request.
  for (const auto& [number, log] : image.requests) {
    bytes_of_[number] = n_bytes / image.requests.size();
    n_live_bytes_ += bytes_of_[number];
  }
  absl::MutexLock lock(&mu_);
  file_bytes_ = n_bytes_;
  return absl::OkStatus();
}

absl::Status Journal::Failed(absl::string_view what) const {
  return absl::UnavailableError(
      absl::StrCat("the journal ", path_, ": ", what, ": ", strerror(errno),
                   "; name a folder on a disk with room that this user may "
                   "write with --journal_dir"));
}

void Journal::GiveUp(const absl::Status& why) {
  if (given_up_.exchange(true)) return;
  LOG(ERROR) << "event=journal_given_up status=\"" << why
             << "\"; requests go on, and end with this process";
  absl::MutexLock lock(&mu_);
  problem_ = std::string(why.message());
}

}  // namespace tern
