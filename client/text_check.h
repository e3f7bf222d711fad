#ifndef CLIENT_TEXT_CHECK_H_
#define CLIENT_TEXT_CHECK_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace tern {

// INVALID_ARGUMENT when some string in the message is not UTF-8, with the name
// of its field, such as "request.chat.messages[2].content", and the offset of
// the byte. Protobuf does not send such a message in a way that the other side
// can read, and nobody could say there what was wrong with it.
absl::Status CheckText(const google::protobuf::Message& message);

}  // namespace tern

#endif  // CLIENT_TEXT_CHECK_H_
