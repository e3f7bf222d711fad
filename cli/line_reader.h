#ifndef CLI_LINE_READER_H_
#define CLI_LINE_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {

// Reads a file line by line, and holds little more than one line of it. Not
// thread-safe; several may read one file.
class LineReader {
 public:
  // `fd` is a regular file, which outlives this object and is read from
  // `offset` on; its own position is not used. `name` is what messages call it.
  LineReader(int fd, std::string name, int64_t offset, size_t line_bytes_max);

  // Goes on to the next line. False at the end of the file. INVALID_ARGUMENT
  // when the line has more than `line_bytes_max` bytes, INTERNAL when the file
  // cannot be read; it goes no further then.
  absl::StatusOr<bool> Next();

  // The line, without its end ("\n" or "\r\n"), until the next call.
  absl::string_view line() const { return line_; }
  // Its number, from 1.
  int64_t number() const { return number_; }
  // Where it begins in the file.
  int64_t begin() const { return begin_; }
  // Whether it has an end. Only the last line may have none.
  bool is_whole() const { return is_whole_; }

  // `why` with the name of the file and the number of the line in front.
  absl::Status ErrorHere(absl::string_view why) const;

 private:
  const int fd_;
  const std::string name_;
  const size_t line_bytes_max_;
  std::string buffer_;    // read, from line_ on
  int64_t buffer_begin_;  // where in the file
  size_t next_ = 0;       // of buffer_: behind line_
  absl::string_view line_;
  int64_t number_ = 0;
  int64_t begin_ = 0;
  bool is_whole_ = false;
};

}  // namespace tern

#endif  // CLI_LINE_READER_H_
