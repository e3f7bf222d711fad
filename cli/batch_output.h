#ifndef CLI_BATCH_OUTPUT_H_
#define CLI_BATCH_OUTPUT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// The line of a result, "\n" included: a JSON object with the id and either
// `error` ({"code": "INVALID_ARGUMENT", "message": ...}), or `usage` and the
// answer: prompt_logprobs, text, finish_reason ("stop" or "length"), and
// stop_string, stop_token_id, token_ids, logprobs as far as the answer has
// them. Several answers are an array, `candidates`. Names and values are those
// of GenerateResponse and Candidate, pieces of tokens base64 as in proto3 JSON.
std::string ResultLine(absl::string_view id,
                       const v1::BatchGenerateResponse& result);

// Where results go: a file of lines that a later run goes on with, or stdout.
// Not thread-safe.
class BatchOutput {
 public:
  // "-" is stdout. Otherwise a file, which is made if there is none, and locked
  // against other runs (FAILED_PRECONDITION) until this object dies. Reads the
  // ids of the results that are there already; a last line that was cut in the
  // middle, by whatever ended that run, is taken off. INVALID_ARGUMENT when the
  // file cannot be opened, or holds something else: it is left as it is then.
  static absl::StatusOr<std::unique_ptr<BatchOutput>> Open(
      const std::string& path);
  ~BatchOutput();
  BatchOutput(const BatchOutput&) = delete;
  BatchOutput& operator=(const BatchOutput&) = delete;

  // Whether there was a result of this id when the file was opened.
  bool Has(const std::string& id) const { return finished_.count(id) > 0; }
  int64_t n_finished() const { return static_cast<int64_t>(finished_.size()); }
  // How many of those were errors.
  int64_t n_errors() const { return n_errors_; }

  // Appends a line. After an error nothing of it is left in the file.
  absl::Status Append(absl::string_view line);

  // Sees to it that what was appended outlives the machine's next crash.
  absl::Status Sync();

 private:
  BatchOutput(int fd, std::string name, bool is_file);

  absl::Status ReadFinished();
  absl::Status Error(absl::string_view what) const;

  const int fd_;
  const std::string name_;
  const bool is_file_;
  int64_t size_ = 0;  // of the file
  absl::flat_hash_set<std::string> finished_;
  int64_t n_errors_ = 0;
};

}  // namespace tern

#endif  // CLI_BATCH_OUTPUT_H_
