#ifndef COORDINATOR_JOURNAL_H_
#define COORDINATOR_JOURNAL_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/journal_proto.h"
#include "util/bounded_queue.h"

namespace tern {

// Keeps on disk what the next coordinator needs to go on with the requests that
// may be resumed: their admissions, their tokens, their ends.
//
// A file of records (coordinator/record_file.h), written by a thread of its
// own: nobody who tells it something ever waits for the disk. It may lack what
// came last, which costs time and no token: an answer is computed again from
// what is there, and comes out the same. When most of the file is about
// requests that are forgotten it is written anew without them.
//
// What goes wrong never harms the requests: when the disk fails, cannot keep
// up, or the file would exceed its limit, the journal is given up, loudly,
// until the coordinator starts again.
//
// Thread-safe.
class Journal {
 public:
  // When records are forced to the disk. What is written but not forced
  // survives the death of the process and not that of the machine.
  enum class Sync {
    kNone,   // never
    kBatch,  // with every write, which has what came during the one before
  };

  struct Options {
    std::string folder;  // made when it is not there; for its owner alone
    Sync sync = Sync::kNone;
    int64_t bytes_max = int64_t{1} << 30;

    // A file is written anew when it is larger than this and twice as large as
    // what it has to hold.
    int64_t rewrite_bytes_min = 8 << 20;

    // Events that may wait to be written.
    size_t queue_capacity = 1 << 16;

    // For tests; not set: write(2) and the wall clock.
    std::function<ssize_t(int fd, const void* data, size_t size)> write;
    std::function<absl::Time()> wall_now;
  };

  // Reads what is there into *image, cuts off a torn tail, and goes on behind
  // it. DATA_LOSS for a file that is damaged, UNAVAILABLE where it cannot be
  // read or written; both name the file and the way out.
  // REQUIRES: no other process has the folder (coordinator/leader_lease.h).
  static absl::StatusOr<std::unique_ptr<Journal>> Open(Options options,
                                                       JournalImage* image);

  // Writes what it was told, then ends the thread.
  ~Journal();

  // A name for a request, never given before.
  int64_t NewNumber() { return ++last_number_; }

  // Tells it something. Never waits.
  void Tell(JournalEvent event);
  void TellEpoch(int64_t epoch);
  void Forget(int64_t number);

  struct Health {
    bool is_writing = false;
    std::string problem;  // why it was given up; empty while it writes
    int64_t n_bytes = 0;  // of the file
    int64_t n_lost_events = 0;
  };
  Health health() const ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until what it was told before is written, or given up.
  void Flush() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  explicit Journal(Options options);

  absl::Status Begin(const JournalImage& image);
  void Run();
  absl::Status Write(const std::vector<JournalEvent>& events);
  absl::Status WriteBytes(int fd, const std::string& bytes);
  absl::Status Sync();
  absl::Status MayRewrite();
  absl::Status Rewrite();
  absl::Status WriteAnew(const JournalImage& image);
  void Account(const JournalEvent& event);
  absl::Status Failed(absl::string_view what) const;
  void GiveUp(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const std::string path_;
  BoundedQueue<JournalEvent> queue_;
  std::atomic<int64_t> last_number_{0};
  std::atomic<int64_t> n_told_{0};
  std::atomic<int64_t> n_lost_{0};
  std::atomic<bool> given_up_{false};

  // Of the thread, once it runs.
  int fd_ = -1;
  int64_t n_bytes_ = 0;
  int64_t n_bytes_anew_ = 0;  // when the file was last written anew
  // About how much the file has of each request that is not forgotten.
  absl::flat_hash_map<int64_t, int64_t> bytes_of_;
  int64_t n_live_bytes_ = 0;
  absl::Time written_at_;

  mutable absl::Mutex mu_;
  int64_t n_done_ ABSL_GUARDED_BY(mu_) = 0;  // events, written or lost
  int64_t file_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::string problem_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

}  // namespace tern

#endif  // COORDINATOR_JOURNAL_H_
