#include "cli/batch_output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/line_reader.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"

namespace tern {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// What every line begins with, see ResultLine().
constexpr absl::string_view kLineStart = "{\"id\":\"";

// Above any line that this program writes: an answer with all its
// log-probabilities fits a message of 16 MiB (util/credentials.h), and JSON
// makes of that some ten times as much.
constexpr size_t kLineBytesMax = 512 << 20;

ordered_json TokenJson(const v1::TokenLogprob& token) {
  const auto common = [](const auto& t) {
    return ordered_json{{"token_id", t.token_id()},
                        {"piece", absl::Base64Escape(t.piece())},
                        {"logprob", t.logprob()}};
  };
  ordered_json result = common(token);
  if (token.alternatives_size() > 0) {
    ordered_json& alternatives = result["alternatives"];
    for (const auto& other : token.alternatives()) {
      alternatives.push_back(common(other));
    }
  }
  return result;
}

// tokens: of TokenLogprob.
template <typename Tokens>
ordered_json TokensJson(const Tokens& tokens) {
  ordered_json result;
  for (const v1::TokenLogprob& token : tokens) {
    result.push_back(TokenJson(token));
  }
  return result;
}

void AddCandidate(const v1::Candidate& candidate, ordered_json* to) {
  ordered_json& object = *to;
  object["text"] = candidate.text();
  object["finish_reason"] =
      candidate.finish_reason() == v1::FINISH_REASON_STOP ? "stop" : "length";
  if (candidate.has_stop_string()) {
    object["stop_string"] = candidate.stop_string();
  }
  if (candidate.has_stop_token_id()) {
    object["stop_token_id"] = candidate.stop_token_id();
  }
  if (candidate.token_ids_size() > 0) {
    object["token_ids"] = candidate.token_ids();
  }
  if (candidate.logprobs_size() > 0) {
    object["logprobs"] = TokensJson(candidate.logprobs());
  }
}

absl::Status NoResults(absl::string_view where, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, " is no result of `tern batch` (", why,
                   "); choose another file for the results"));
}

}  // namespace

std::string ResultLine(absl::string_view id,
                       const v1::BatchGenerateResponse& result) {
  ordered_json line;
  line["id"] = std::string(id);
  if (result.has_error()) {
    line["error"]["code"] = absl::StatusCodeToString(
        static_cast<absl::StatusCode>(result.error().code()));
    line["error"]["message"] = result.error().message();
  } else {
    const v1::GenerateResponse& response = result.response();
    if (response.prompt_logprobs_size() > 0) {
      line["prompt_logprobs"] = TokensJson(response.prompt_logprobs());
    }
    if (response.candidates_size() == 1) {
      AddCandidate(response.candidates(0), &line);
    } else {
      ordered_json& candidates = line["candidates"];
      for (const v1::Candidate& candidate : response.candidates()) {
        ordered_json& object = candidates.emplace_back();
        object["index"] = candidate.index();
        AddCandidate(candidate, &object);
      }
    }
    const v1::Usage& usage = response.usage();
    line["usage"] = {
        {"prompt_token_count", usage.prompt_token_count()},
        {"output_token_count", usage.output_token_count()},
        {"cached_prompt_token_count", usage.cached_prompt_token_count()}};
    for (const v1::NumericsChange& change : response.numerics_changes()) {
      line["numerics_changes"].push_back(
          {{"candidate_index", change.candidate_index()},
           {"output_token_count", change.output_token_count()},
           {"numerics_id", change.numerics_id()}});
    }
  }
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) +
         "\n";
}

absl::StatusOr<std::unique_ptr<BatchOutput>> BatchOutput::Open(
    const std::string& path) {
  if (path == "-") {
    return std::unique_ptr<BatchOutput>(
        new BatchOutput(dup(STDOUT_FILENO), "stdout", /*is_file=*/false));
  }
  const int fd =
      open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
  }
  std::unique_ptr<BatchOutput> output(new BatchOutput(fd, path, true));
  struct stat facts;
  if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is no file that results can be appended to; - is stdout"));
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return output->Error("cannot lock");
    return absl::FailedPreconditionError(absl::StrCat(
        path,
        " is in use by another `tern batch`; two of them would answer "
        "every prompt twice"));
  }
  RETURN_IF_ERROR(output->ReadFinished());
  return output;
}

BatchOutput::BatchOutput(int fd, std::string name, bool is_file)
    : fd_(fd), name_(std::move(name)), is_file_(is_file) {}

BatchOutput::~BatchOutput() { close(fd_); }

absl::Status BatchOutput::ReadFinished() {
  LineReader reader(fd_, name_, 0, kLineBytesMax);
  for (;;) {
    ASSIGN_OR_RETURN(const bool has_line, reader.Next());
    if (!has_line) break;
    const std::string where = absl::StrCat(name_, ":", reader.number());
    const absl::string_view line = reader.line();
    if (!reader.is_whole()) {
      if (!absl::StartsWith(line, kLineStart) &&
          !absl::StartsWith(kLineStart, line)) {
        return NoResults(where, "nor the beginning of one");
      }
      if (ftruncate(fd_, reader.begin()) != 0) return Error("cannot shorten");
      break;
    }
    // Of the rest of the line nothing is kept but its keys.
    json object = json::parse(
        line.begin(), line.end(),
        [](int depth, json::parse_event_t, json&) { return depth <= 1; },
        /*allow_exceptions=*/false);
    if (!object.is_object()) return NoResults(where, "no JSON object");
    const auto id = object.find("id");
    if (id == object.end() || !id->is_string()) {
      return NoResults(where, "without an id");
    }
    const bool is_error = object.contains("error");
    if (!is_error && !object.contains("usage")) {
      return NoResults(where, "without usage and without error");
    }
    if (finished_.insert(id->get<std::string>()).second) n_errors_ += is_error;
  }
  size_ = lseek(fd_, 0, SEEK_END);
  return absl::OkStatus();
}

absl::Status BatchOutput::Append(absl::string_view line) {
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      absl::Status error = Error("cannot write");
      // If this fails, too, the next run takes the rest off.
      if (is_file_ && done > 0 && ftruncate(fd_, size_) != 0) return error;
      return error;
    }
    done += n;
  }
  size_ += static_cast<int64_t>(line.size());
  return absl::OkStatus();
}

absl::Status BatchOutput::Sync() {
  if (is_file_ && fdatasync(fd_) != 0) return Error("cannot write");
  return absl::OkStatus();
}

absl::Status BatchOutput::Error(absl::string_view what) const {
  return absl::InternalError(
      absl::StrCat(what, " ", name_, ": ", std::strerror(errno)));
}

}  // namespace tern
