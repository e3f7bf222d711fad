#include "worker/weight_fetcher.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "model/manifest.h"
#include "util/logging.h"
#include "util/sha256.h"

namespace tern {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);
constexpr int kLastSourcePatience = 6;  // times as long as the others

// One fetch, from start to end.
class Fetch {
 public:
  Fetch(CachedModel* replica, absl::Span<const int> blocks,
        const std::vector<std::shared_ptr<WeightSource>>& sources,
        const FetchOptions& options)
      : replica_(*replica),
        blocks_(blocks),
        sources_(sources),
        options_(options),
        rest_until_(sources.size(), absl::InfinitePast()),
        said_(sources.size()) {
    for (const int block : blocks) {
      total_bytes_ += replica_.blocks()[block].bytes;
    }
    while (n_own_ < sources.size() && sources[n_own_]->is_own()) ++n_own_;
  }

  absl::StatusOr<FetchReport> Run(
      const std::function<void(int64_t, int64_t)>& progress,
      const std::function<bool()>& cancelled) {
    const int n_threads = static_cast<int>(
        std::min<size_t>(std::max(1, options_.n_streams), blocks_.size()));
    std::vector<std::thread> threads;
    {
      absl::MutexLock lock(&mu_);
      n_working_ = n_threads;
    }
    for (int i = 0; i < n_threads; ++i) {
      threads.emplace_back([this] { Work(); });
    }
    while (!AwaitEnd()) {
      progress(done_bytes(), total_bytes_);
      if (cancelled()) {
        End(absl::CancelledError("nobody waits for the weights any more"));
      }
    }
    for (std::thread& thread : threads) thread.join();
    progress(done_bytes(), total_bytes_);
    absl::MutexLock lock(&mu_);
    if (!status_.ok()) return status_;
    return report_;
  }

 private:
  // Waits until all threads have ended, or it is time for a look around.
  bool AwaitEnd() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return n_working_ == 0;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&ended), kProgressInterval);
  }

  int64_t done_bytes() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return done_bytes_;
  }

  // Ends the fetch; calls under way as well.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    {
      absl::MutexLock lock(&mu_);
      status_.Update(status);
    }
    for (const auto& source : sources_) source->Cancel();
  }

  bool IsOver() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return !status_.ok();
  }

  void Work() {
    std::vector<uint8_t> buffer;
    while (true) {
      size_t i;
      {
        absl::MutexLock lock(&mu_);
        if (!status_.ok() || next_ == blocks_.size()) {
          --n_working_;
          return;
        }
        i = next_++;
      }
      const absl::Status status = FetchOne(blocks_[i], &buffer);
      if (!status.ok()) End(status);
    }
  }

  absl::Status FetchOne(int number, std::vector<uint8_t>* buffer) {
    const ManifestBlock& block = replica_.blocks()[number];
    buffer->resize(block.bytes);
    if (replica_.MustRecheck(number)) {
      const bool is_good =
          replica_.ReadUnchecked(number, absl::MakeSpan(*buffer)).ok() &&
          Sha256(buffer->data(), buffer->size()) == block.hash;
      replica_.SetRechecked(number, is_good);
      if (is_good) {
        absl::MutexLock lock(&mu_);
        report_.rechecked_bytes += block.bytes;
      }
    }
    absl::Duration wait = options_.first_wait;
    for (int round = 0; round < options_.rounds_max; ++round) {
      // Another process may have fetched it.
      if (replica_.Has(number)) {
        absl::MutexLock lock(&mu_);
        done_bytes_ += block.bytes;
        return absl::OkStatus();
      }
      if (round > 0 && !Wait(&wait)) break;
      for (size_t k = 0; k < sources_.size() && !IsOver(); ++k) {
        const size_t s = SourceFor(number, k);
        if (!TryFrom(s, block, buffer)) continue;
        const absl::Status stored = replica_.Store(number, *buffer);
        if (!stored.ok()) return stored;
        absl::MutexLock lock(&mu_);
        done_bytes_ += block.bytes;
        report_.bytes_by_source[sources_[s]->name()] += block.bytes;
        return absl::OkStatus();
      }
    }
    absl::MutexLock lock(&mu_);
    if (!status_.ok()) return status_;
    std::string text = absl::StrCat("nobody gives ", TextOf(block), ":");
    for (size_t s = 0; s < sources_.size(); ++s) {
      absl::StrAppend(&text, s == 0 ? " " : "; ", sources_[s]->name(), ": ",
                      said_[s].ToString());
    }
    return absl::UnavailableError(text);
  }

  // The k-th source to ask for a block: its own files, then the others in
  // turns, then the last.
  size_t SourceFor(int number, size_t k) const {
    if (k < n_own_ || k + 1 == sources_.size()) return k;
    const size_t n_peers = sources_.size() - 1 - n_own_;
    return n_own_ + (number + k) % n_peers;
  }

  // Whether the source has filled the buffer with the block.
  bool TryFrom(size_t s, const ManifestBlock& block,
               std::vector<uint8_t>* buffer) {
    {
      absl::MutexLock lock(&mu_);
      if (absl::Now() < rest_until_[s]) return false;
    }
    const bool is_last = s + 1 == sources_.size();
    absl::Status status = sources_[s]->Read(
        replica_.content_id(), block, absl::MakeSpan(*buffer),
        options_.read_timeout * (is_last ? kLastSourcePatience : 1));
    if (status.ok() && Sha256(buffer->data(), buffer->size()) == block.hash) {
      return true;
    }
    absl::Time rest_until = absl::InfinitePast();
    if (sources_[s]->is_own()) {
      // That it differs in places is why the others are asked.
      if (status.ok()) status = absl::DataLossError("the file differs");
    } else if (status.ok()) {
      status = absl::DataLossError(
          absl::StrCat(TextOf(block),
                       " came with other bytes than it should "
                       "have"));
      rest_until = absl::InfiniteFuture();
      LOG(WARNING) << "event=weights_damaged source=\"" << sources_[s]->name()
                   << "\" content=" << replica_.content_id() << " what=\""
                   << TextOf(block) << "\"; it is not asked again";
    } else if (!absl::IsResourceExhausted(status) && !is_last) {
      rest_until = absl::Now() + RestAfter(status);
      if (!absl::IsNotFound(status) && !absl::IsCancelled(status)) {
        LOG(WARNING) << "event=weights_source_failed source=\""
                     << sources_[s]->name() << "\" status=\""
                     << status.ToString() << "\"";
      }
    }
    absl::MutexLock lock(&mu_);
    said_[s] = status;
    rest_until_[s] = std::max(rest_until_[s], rest_until);
    return false;
  }

  // How long somebody who did not give a block is left alone. Who has not got
  // it, most likely has not got the next one either, but may be fetching it.
  absl::Duration RestAfter(const absl::Status& status) const {
    return absl::IsNotFound(status) ? absl::Milliseconds(200)
                                    : absl::Seconds(5);
  }

  // False when the fetch is over.
  bool Wait(absl::Duration* wait) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return !status_.ok();
    };
    const bool is_over = mu_.AwaitWithTimeout(absl::Condition(&over), *wait);
    *wait *= 2;
    return !is_over;
  }

  std::string TextOf(const ManifestBlock& block) const {
    const ManifestFile& file = replica_.manifest().files[block.file];
    return absl::StrCat(PartText(file.parts[block.part]), " of ", file.name,
                        " at byte ", block.offset);
  }

  CachedModel& replica_;
  const absl::Span<const int> blocks_;
  const std::vector<std::shared_ptr<WeightSource>>& sources_;
  const FetchOptions& options_;
  int64_t total_bytes_ = 0;
  size_t n_own_ = 0;  // sources, the first ones

  mutable absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
  int n_working_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t done_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<absl::Time> rest_until_ ABSL_GUARDED_BY(mu_);  // of sources
  std::vector<absl::Status> said_ ABSL_GUARDED_BY(mu_);      // by them, last
  FetchReport report_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<FetchReport> FetchBlocks(
    CachedModel* replica, absl::Span<const int> blocks,
    const std::vector<std::shared_ptr<WeightSource>>& sources,
    const FetchOptions& options,
    const std::function<void(int64_t, int64_t)>& progress,
    const std::function<bool()>& cancelled) {
  return Fetch(replica, blocks, sources, options).Run(progress, cancelled);
}

}  // namespace tern
