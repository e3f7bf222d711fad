#ifndef CLI_BATCH_INPUT_H_
#define CLI_BATCH_INPUT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cli/line_reader.h"
#include "client/cancellation.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// One prompt of a file.
struct BatchPrompt {
  std::string id;
  v1::GenerateRequest request;
};

// Reads a line of a batch: a JSON object with
//   id                text of 1 to 256 bytes; left out, the line's number
//   prompt            text, or
//   token_ids         an array of token ids, or
//   messages          an array of {"role": ..., "content": ...}
//   sampling, stopping, response_options, priority
//                     as in GenerateRequest, in proto3 JSON
// A field set in one of the last takes the place of the same field of
// `defaults`, which has everything but a prompt. INVALID_ARGUMENT says what is
// wrong with the line.
absl::StatusOr<BatchPrompt> ParseBatchLine(absl::string_view line,
                                           int64_t number,
                                           const v1::GenerateRequest& defaults);

// A file of prompts, one a line; lines without anything but white space are
// skipped. Holds one line at a time. Not thread-safe.
class BatchInput {
 public:
  // "-" is stdin. What cannot be read twice (a pipe) is copied to a temporary
  // file first; CANCELLED when the user does not want to wait for it.
  // INVALID_ARGUMENT when there is no such file.
  static absl::StatusOr<std::unique_ptr<BatchInput>> Open(
      const std::string& path, v1::GenerateRequest defaults,
      const Cancellation& cancellation);
  ~BatchInput();
  BatchInput(const BatchInput&) = delete;
  BatchInput& operator=(const BatchInput&) = delete;

  // Reads the file to its end and passes every id on. INVALID_ARGUMENT names
  // the first bad lines, and what is wrong with each; an id that comes twice is
  // wrong, too. Remembers the ids while it runs, nothing else.
  absl::Status Check(const Cancellation& cancellation,
                     absl::FunctionRef<void(const std::string& id)> on_id);

  // The next prompt, from the first on. False at the end.
  absl::StatusOr<bool> Next(BatchPrompt* prompt);

  // Whether `path` is the very file.
  bool IsFile(const std::string& path) const;

 private:
  BatchInput(int fd, std::string name, int64_t offset,
             v1::GenerateRequest defaults);

  // As Next(), for either reading.
  absl::StatusOr<bool> Read(LineReader* reader, BatchPrompt* prompt) const;

  const int fd_;
  const std::string name_;
  const int64_t offset_;  // where the prompts begin
  const v1::GenerateRequest defaults_;
  LineReader reader_;
};

}  // namespace tern

#endif  // CLI_BATCH_INPUT_H_
