#include "cli/batch_input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"

namespace tern {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

// A prompt's text may be 1 MiB, which "\u00e9" and its like make six times as
// much at most; what is sent must fit a message (util/credentials.h).
constexpr size_t kLineBytesMax = 8 << 20;
constexpr size_t kIdBytesMax = 256;
// Nothing in a line is deeper than a logit's bias.
constexpr int kDepthMax = 16;
// Bad lines that one message names.
constexpr size_t kProblemsMax = 10;

// How long a signal may wait for a pipe.
constexpr int kPollMs = 200;

absl::Status Invalid(absl::string_view why) {
  return absl::InvalidArgumentError(why);
}

absl::StatusOr<json> ParseObject(absl::string_view line) {
  bool too_deep = false;
  // Values that are too deep are not kept: what holds them, and what prints
  // them again, would recurse as deep.
  const auto keep = [&too_deep](int depth, json::parse_event_t, json&) {
    too_deep |= depth > kDepthMax;
    return depth <= kDepthMax;
  };
  json object;
  try {
    object = json::parse(line.begin(), line.end(), keep);
  } catch (const json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 9: ..."
    absl::string_view why = e.what();
    const size_t bracket = why.find("] ");
    if (bracket != absl::string_view::npos) why.remove_prefix(bracket + 2);
    absl::ConsumePrefix(&why, "parse error at line 1, ");
    return Invalid(absl::StrCat("not JSON: ", why));
  }
  if (too_deep) {
    return Invalid(
        absl::StrCat("the JSON is nested deeper than ", kDepthMax, " levels"));
  }
  if (!object.is_object()) {
    return Invalid(
        absl::StrCat("a JSON object was expected, not ", object.type_name()));
  }
  return object;
}

absl::StatusOr<std::string> Text(const json& value, absl::string_view name) {
  if (!value.is_string()) {
    return Invalid(
        absl::StrCat(name, " is to be a string, not ", value.type_name()));
  }
  return value.get<std::string>();
}

absl::StatusOr<int32_t> Int32(const json& value, absl::string_view name) {
  const auto refuse = [&] {
    return Invalid(
        absl::StrCat(name, " is to be a whole number of 32 bits, not ",
                     value.is_number() ? value.dump() : value.type_name()));
  };
  if (!value.is_number_integer()) return refuse();
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
    return refuse();
  }
  const int64_t number = value.get<int64_t>();
  if (number < std::numeric_limits<int32_t>::min()) return refuse();
  return static_cast<int32_t>(number);
}

absl::Status SetTokenIds(const json& value, v1::GenerateRequest* request) {
  if (!value.is_array()) {
    return Invalid(
        absl::StrCat("token_ids is to be an array, not ", value.type_name()));
  }
  v1::TokenIds& token_ids = *request->mutable_token_ids();
  token_ids.mutable_ids()->Reserve(static_cast<int>(value.size()));
  for (const json& id : value) {
    ASSIGN_OR_RETURN(
        const int32_t number,
        Int32(id, absl::StrCat("token_ids[", token_ids.ids_size(), "]")));
    token_ids.add_ids(number);
  }
  return absl::OkStatus();
}

absl::Status SetMessages(const json& value, v1::GenerateRequest* request) {
  static constexpr std::array<std::pair<absl::string_view, v1::ChatRole>, 4>
      kRoles = {{{"system", v1::CHAT_ROLE_SYSTEM},
                 {"user", v1::CHAT_ROLE_USER},
                 {"assistant", v1::CHAT_ROLE_ASSISTANT},
                 {"tool", v1::CHAT_ROLE_TOOL}}};
  if (!value.is_array()) {
    return Invalid(
        absl::StrCat("messages is to be an array, not ", value.type_name()));
  }
  v1::ChatPrompt& chat = *request->mutable_chat();
  for (const json& item : value) {
    const std::string name =
        absl::StrCat("messages[", chat.messages_size(), "]");
    if (!item.is_object()) {
      return Invalid(
          absl::StrCat(name, " is to be an object, not ", item.type_name()));
    }
    v1::ChatMessage& message = *chat.add_messages();
    for (const auto& [key, part] : item.items()) {
      const std::string path = absl::StrCat(name, ".", key);
      if (key == "role") {
        ASSIGN_OR_RETURN(const std::string role, Text(part, path));
        for (const auto& [spelling, number] : kRoles) {
          if (role == spelling) message.set_role(number);
        }
        if (message.role() == v1::CHAT_ROLE_UNSPECIFIED) {
          return Invalid(
              absl::StrCat(path, " is \"", role,
                           "\"; it is to be system, user, assistant or tool"));
        }
      } else if (key == "content") {
        ASSIGN_OR_RETURN(*message.mutable_content(), Text(part, path));
      } else {
        return Invalid(absl::StrCat("there is no field ", path,
                                    "; a message has role and content"));
      }
    }
    if (message.role() == v1::CHAT_ROLE_UNSPECIFIED) {
      return Invalid(absl::StrCat(name, " has no role"));
    }
  }
  return absl::OkStatus();
}

// Puts the fields that `value` sets into the places of those in `message`.
absl::Status Override(const json& value, absl::string_view name,
                      Message* message) {
  if (!value.is_object()) {
    return Invalid(
        absl::StrCat(name, " is to be an object, not ", value.type_name()));
  }
  const std::unique_ptr<Message> given(message->New());
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(value.dump(), given.get());
  if (!parsed.ok()) {
    return Invalid(absl::StrCat(
        name, ": ",
        absl::string_view(parsed.message().data(), parsed.message().size())));
  }
  std::vector<const FieldDescriptor*> fields;
  given->GetReflection()->ListFields(*given, &fields);
  for (const FieldDescriptor* field : fields) {
    message->GetReflection()->ClearField(message, field);
  }
  message->MergeFrom(*given);
  return absl::OkStatus();
}

// Copies what a pipe has to a file without a name.
absl::StatusOr<int> CopyToFile(int pipe, const std::string& name,
                               const Cancellation& cancellation) {
  const auto failed = [&name](absl::string_view what) {
    return absl::InternalError(
        absl::StrCat(what, " ", name, ": ", std::strerror(errno)));
  };
  std::FILE* const temporary = std::tmpfile();
  if (temporary == nullptr) return failed("no temporary file for");
  const int fd = fcntl(fileno(temporary), F_DUPFD_CLOEXEC, 0);
  std::fclose(temporary);
  if (fd < 0) return failed("no temporary file for");
  absl::Status status;
  std::vector<char> buffer(64 << 10);
  while (status.ok()) {
    if (cancellation.cancelled()) {
      status = absl::CancelledError("interrupted while reading the prompts");
      break;
    }
    pollfd readable = {pipe, POLLIN, 0};
    if (poll(&readable, 1, kPollMs) <= 0) continue;
    const ssize_t n = read(pipe, buffer.data(), buffer.size());
    if (n == 0) return fd;
    if (n < 0 && errno != EINTR) status = failed("cannot read");
    for (ssize_t done = 0; done < n && status.ok();) {
      const ssize_t written = write(fd, buffer.data() + done, n - done);
      if (written < 0) {
        status = failed("cannot write the temporary copy of");
      } else {
        done += written;
      }
    }
  }
  close(fd);
  return status;
}

}  // namespace

absl::StatusOr<BatchPrompt> ParseBatchLine(
    absl::string_view line, int64_t number,
    const v1::GenerateRequest& defaults) {
  ASSIGN_OR_RETURN(const json object, ParseObject(line));
  BatchPrompt prompt;
  prompt.id = absl::StrCat(number);
  v1::GenerateRequest& request = prompt.request;
  request = defaults;
  int n_prompts = 0;
  for (const auto& [key, value] : object.items()) {
    if (key == "id") {
      ASSIGN_OR_RETURN(prompt.id, Text(value, key));
      if (prompt.id.empty() || prompt.id.size() > kIdBytesMax) {
        return Invalid(absl::StrCat("id has ", prompt.id.size(),
                                    " bytes; it must have 1 to ", kIdBytesMax));
      }
    } else if (key == "prompt") {
      ++n_prompts;
      ASSIGN_OR_RETURN(*request.mutable_text(), Text(value, key));
    } else if (key == "token_ids") {
      ++n_prompts;
      RETURN_IF_ERROR(SetTokenIds(value, &request));
    } else if (key == "messages") {
      ++n_prompts;
      RETURN_IF_ERROR(SetMessages(value, &request));
    } else if (key == "sampling") {
      RETURN_IF_ERROR(Override(value, key, request.mutable_sampling()));
    } else if (key == "stopping") {
      RETURN_IF_ERROR(Override(value, key, request.mutable_stopping()));
    } else if (key == "response_options" || key == "responseOptions") {
      RETURN_IF_ERROR(Override(value, key, request.mutable_response_options()));
    } else if (key == "priority") {
      ASSIGN_OR_RETURN(const int32_t priority, Int32(value, key));
      request.set_priority(priority);
    } else {
      return Invalid(absl::StrCat(
          "there is no field \"", key,
          "\"; there are id, prompt, token_ids, messages, sampling, stopping, "
          "response_options and priority"));
    }
  }
  if (n_prompts != 1) {
    return Invalid(absl::StrCat(
        n_prompts == 0 ? "there is no prompt" : "there are several prompts",
        ": exactly one of prompt, token_ids and messages is to be there"));
  }
  if (request.ByteSizeLong() > kLineBytesMax) {
    return Invalid(absl::StrCat("the request takes ", request.ByteSizeLong(),
                                " bytes; the limit is ", kLineBytesMax));
  }
  return prompt;
}

absl::StatusOr<std::unique_ptr<BatchInput>> BatchInput::Open(
    const std::string& path, v1::GenerateRequest defaults,
    const Cancellation& cancellation) {
  const std::string name = path == "-" ? "stdin" : path;
  int fd = path == "-" ? dup(STDIN_FILENO)
                       : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts;
  if (fd < 0 || fstat(fd, &facts) != 0) {
    return Invalid(
        absl::StrCat("cannot read ", name, ": ", std::strerror(errno)));
  }
  int64_t offset = 0;
  if (S_ISREG(facts.st_mode)) {
    // Where whoever read of stdin before us left it.
    offset = lseek(fd, 0, SEEK_CUR);
  } else if (S_ISDIR(facts.st_mode)) {
    close(fd);
    return Invalid(absl::StrCat(name, " is a folder, not a file of prompts"));
  } else {
    const absl::StatusOr<int> copy = CopyToFile(fd, name, cancellation);
    close(fd);
    RETURN_IF_ERROR(copy.status());
    fd = *copy;
  }
  return std::unique_ptr<BatchInput>(
      new BatchInput(fd, name, offset, std::move(defaults)));
}

BatchInput::BatchInput(int fd, std::string name, int64_t offset,
                       v1::GenerateRequest defaults)
    : fd_(fd),
      name_(std::move(name)),
      offset_(offset),
      defaults_(std::move(defaults)),
      reader_(fd_, name_, offset_, kLineBytesMax) {}

BatchInput::~BatchInput() { close(fd_); }

absl::Status BatchInput::Check(
    const Cancellation& cancellation,
    absl::FunctionRef<void(const std::string& id)> on_id) {
  LineReader reader(fd_, name_, offset_, kLineBytesMax);
  absl::flat_hash_map<std::string, int64_t> line_of_id;
  std::vector<std::string> problems;
  BatchPrompt prompt;
  for (;;) {
    if (cancellation.cancelled()) {
      return absl::CancelledError("interrupted while checking the prompts");
    }
    const absl::StatusOr<bool> read = Read(&reader, &prompt);
    absl::Status bad = read.status();
    if (bad.ok()) {
      if (!*read) break;
      const auto [it, is_new] =
          line_of_id.try_emplace(prompt.id, reader.number());
      if (is_new) {
        on_id(prompt.id);
        continue;
      }
      bad = reader.ErrorHere(absl::StrCat(
          "the id \"", prompt.id, "\" is that of line ", it->second, ", too"));
    } else if (!absl::IsInvalidArgument(bad)) {
      return bad;
    }
    problems.push_back(std::string(bad.message()));
    // Where a line that is too long ends is not looked for.
    if (problems.size() == kProblemsMax || !reader.is_whole()) break;
  }
  if (problems.empty()) return absl::OkStatus();
  return Invalid(absl::StrJoin(problems, "\n"));
}

absl::StatusOr<bool> BatchInput::Next(BatchPrompt* prompt) {
  return Read(&reader_, prompt);
}

absl::StatusOr<bool> BatchInput::Read(LineReader* reader,
                                      BatchPrompt* prompt) const {
  for (;;) {
    ASSIGN_OR_RETURN(const bool has_line, reader->Next());
    if (!has_line) return false;
    if (!absl::StripAsciiWhitespace(reader->line()).empty()) break;
  }
  auto parsed = ParseBatchLine(reader->line(), reader->number(), defaults_);
  if (!parsed.ok()) return reader->ErrorHere(parsed.status().message());
  *prompt = *std::move(parsed);
  return true;
}

bool BatchInput::IsFile(const std::string& path) const {
  struct stat mine;
  struct stat other;
  return fstat(fd_, &mine) == 0 && stat(path.c_str(), &other) == 0 &&
         mine.st_dev == other.st_dev && mine.st_ino == other.st_ino;
}

}  // namespace tern
