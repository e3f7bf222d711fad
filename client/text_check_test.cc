#include "client/text_check.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {
namespace {

void ExpectNamed(const google::protobuf::Message& message,
                 const std::string& what) {
  const absl::Status status = CheckText(message);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), what)) << status;
}

TEST(CheckText, PassesWhatCanBeSent) {
  v1::GenerateRequest request;
  EXPECT_TRUE(CheckText(request).ok());
  request.set_text("Grüße, 世界");
  request.mutable_stopping()->add_stop_strings("ß");
  EXPECT_TRUE(CheckText(request).ok());

  v1::TokenizeResponse bytes;
  bytes.add_pieces("\xff");  // bytes are no text
  EXPECT_TRUE(CheckText(bytes).ok());
}

TEST(CheckText, NamesTheFieldAndTheByte) {
  v1::GenerateRequest request;
  request.set_text("ab\xff");
  ExpectNamed(request, "text is not UTF-8: byte 255 at offset 2");
  request.mutable_chat()->add_messages()->set_content("fine");
  request.mutable_chat()->add_messages()->set_content("\xc3(");
  ExpectNamed(request, "chat.messages[1].content is not UTF-8: byte 195");
  request.set_text("fine");
  request.mutable_stopping()->add_stop_strings("fine");
  request.mutable_stopping()->add_stop_strings("fine");
  request.mutable_stopping()->add_stop_strings("\x80");
  ExpectNamed(request, "stopping.stop_strings[2] is not UTF-8: byte 128");

  v1::BatchGenerateRequest batch;
  *batch.mutable_request() = request;
  ExpectNamed(batch, "request.stopping.stop_strings[2]");
}

}  // namespace
}  // namespace tern
