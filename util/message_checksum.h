#ifndef UTIL_MESSAGE_CHECKSUM_H_
#define UTIL_MESSAGE_CHECKSUM_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"

namespace tern {

// CRC-32C of a message as it is on the wire, maps in the order of their keys.
// The same for everyone who knows its fields; a field that the reader does not
// know yet counts as well, as long as its number is above those it knows.
uint32_t ChecksumOf(const google::protobuf::MessageLite& message);

// For messages with `optional fixed32 crc32c`, the checksum of all else in
// them: what TCP lets through (its sum is 16 bits) or a broken machine does to
// a message must not become other tokens.

template <typename Message>
void SetChecksum(Message* message) {
  message->clear_crc32c();
  message->set_crc32c(ChecksumOf(*message));
}

// Takes the checksum out. DATA_LOSS when it is wrong, naming `what` the message
// is. A message without one is of an earlier release, and passes.
template <typename Message>
absl::Status TakeChecksum(absl::string_view what, Message* message) {
  if (!message->has_crc32c()) return absl::OkStatus();
  const uint32_t said = message->crc32c();
  message->clear_crc32c();
  if (ChecksumOf(*message) == said) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the checksum of ", what, " is wrong: it was damaged on its way"));
}

// The same for a message that must not be changed.
template <typename Message>
absl::Status CheckChecksum(absl::string_view what, const Message& message) {
  Message copy = message;
  return TakeChecksum(what, &copy);
}

}  // namespace tern

#endif  // UTIL_MESSAGE_CHECKSUM_H_
