#ifndef BENCH_LOAD_GENERATOR_H_
#define BENCH_LOAD_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/workload.h"
#include "client/cancellation.h"
#include "grpcpp/channel.h"

namespace tern {

// How requests are sent.
struct LoadOptions {
  // Closed loop: so many requests are always under way, the next one starts
  // when one has ended. With `rate`, the most that may be under way: above that
  // a request is not sent, and counted as dropped. At least 1.
  int concurrency = 1;
  // Open loop: requests a second on average, at random (Poisson) times. 0: the
  // closed loop.
  double rate = 0;
  // Requests to send; 0 for as many as `duration` has time for.
  int64_t n_requests = 0;
  // Sending ends after this. Counted from the end of the warm-up.
  absl::Duration duration = absl::InfiniteDuration();
  // Nothing that happens before counts.
  absl::Duration warmup = absl::ZeroDuration();
  // How long the last requests may take to end before they are cancelled.
  absl::Duration drain = absl::Seconds(30);
  // Of each call.
  absl::Duration deadline = absl::InfiniteDuration();
  // Limits of goodput, see LoadResult::n_good. Infinite: none.
  absl::Duration good_ttft = absl::InfiniteDuration();
  absl::Duration good_itl = absl::InfiniteDuration();

  // Called in Run(): once when what counts begins, and once when it ends.
  std::function<void()> on_begin;
  std::function<void()> on_end;
  // Called in Run() about once a second, with what to show a waiting user. May
  // be null.
  std::function<void(const std::string& line)> on_progress;
};

// What came of it. Times are in milliseconds, lists are sorted by
// SummariesOf(). Requests are those that were sent while things counted;
// throughput is what arrived meanwhile, whenever it was asked for.
struct LoadResult {
  absl::Duration window;                  // how long things counted
  int64_t n_ok = 0;                       // answered
  int64_t n_cancelled = 0;                // by the client, as planned
  int64_t n_dropped = 0;                  // not sent, too many were under way
  int64_t n_unfinished = 0;               // cut off at the end
  std::map<std::string, int64_t> errors;  // by the name of the status
  std::string first_error;                // its message
  // Answered with the first token and, on average, the gaps between tokens
  // within the limits.
  int64_t n_good = 0;

  int64_t n_output_tokens = 0;         // that arrived in the window
  int64_t n_prompt_tokens = 0;         // of prompts whose first token did
  int64_t n_messages = 0;              // that brought the output tokens
  int64_t n_cached_prompt_tokens = 0;  // of answered requests
  int peak_under_way = 0;              // requests sent and not ended
  int peak_generating = 0;             // those with a first token

  // Of answered requests. From the call to the first token; to the end.
  std::vector<float> ttft_ms;
  std::vector<float> e2e_ms;
  // Between tokens that follow each other, of all requests, from the second
  // token on. Tokens that come in one message are seen at one time: the first
  // has the gap since the message before, the others 0.
  std::vector<float> gap_ms;
  // Each request's mean gap.
  std::vector<float> mean_gap_ms;

  // Output tokens that arrived in each kBucket since the beginning, warm-up
  // included.
  static constexpr absl::Duration kBucket = absl::Milliseconds(200);
  std::vector<int64_t> tokens_by_time;
};

// Sends requests of `workload` as streams over one connection and waits for
// their ends. No thread of its own: gRPC's run the reactions. Cancelling
// `cancellation` (may be null) ends it early, with what was counted so far.
LoadResult RunLoad(const LoadOptions& options, const Workload& workload,
                   const std::shared_ptr<grpc::Channel>& channel,
                   const Cancellation* cancellation);

}  // namespace tern

#endif  // BENCH_LOAD_GENERATOR_H_
