#include "cli/line_reader.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace tern {
namespace {

constexpr size_t kReadBytes = 64 << 10;

}  // namespace

LineReader::LineReader(int fd, std::string name, int64_t offset,
                       size_t line_bytes_max)
    : fd_(fd),
      name_(std::move(name)),
      line_bytes_max_(line_bytes_max),
      buffer_begin_(offset) {}

absl::StatusOr<bool> LineReader::Next() {
  ++number_;
  line_ = {};
  is_whole_ = false;
  begin_ = buffer_begin_ + static_cast<int64_t>(next_);
  size_t n_searched = 0;  // of the line: no end in them
  for (;;) {
    const absl::string_view rest = absl::string_view(buffer_).substr(next_);
    const size_t end = rest.find('\n', n_searched);
    const bool has_end = end != absl::string_view::npos;
    n_searched = has_end ? end : rest.size();
    if (n_searched > line_bytes_max_) {
      return ErrorHere(absl::StrCat("the line has more than ", line_bytes_max_,
                                    " bytes, which is the limit"));
    }
    if (has_end) {
      line_ = absl::StripSuffix(rest.substr(0, end), "\r");
      next_ += end + 1;
      is_whole_ = true;
      return true;
    }
    buffer_.erase(0, next_);
    buffer_begin_ += static_cast<int64_t>(next_);
    next_ = 0;
    const size_t size = buffer_.size();
    buffer_.resize(size + kReadBytes);
    ssize_t n_read;
    do {
      n_read = pread(fd_, &buffer_[size], kReadBytes,
                     buffer_begin_ + static_cast<int64_t>(size));
    } while (n_read < 0 && errno == EINTR);
    if (n_read < 0) {
      return absl::InternalError(
          absl::StrCat("cannot read ", name_, ": ", std::strerror(errno)));
    }
    buffer_.resize(size + n_read);
    if (n_read == 0) {
      line_ = buffer_;
      next_ = buffer_.size();
      return !line_.empty();
    }
  }
}

absl::Status LineReader::ErrorHere(absl::string_view why) const {
  return absl::InvalidArgumentError(
      absl::StrCat(name_, ":", number_, ": ", why));
}

}  // namespace tern
