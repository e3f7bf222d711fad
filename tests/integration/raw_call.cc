#include "tests/integration/raw_call.h"

#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "util/grpc_status.h"

namespace tern {
namespace {

// A string field of a protobuf message.
std::string StringField(int number, const std::string& value) {
  std::string bytes(1, static_cast<char>(number << 3 | 2));
  bytes += static_cast<char>(value.size());
  return bytes + value;
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// Sends one request and gives the answers to `on_answer` until it returns true,
// and the call is cancelled, or they end.
grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                     const std::string& method, const std::string& request,
                     absl::Duration timeout,
                     const std::function<bool(const std::string&)>& on_answer) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  auto call = stub.PrepareCall(&context, method, &queue);
  auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(nullptr);
  if (next()) {
    grpc::Slice slice(request);
    call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    bool done = !next();
    grpc::ByteBuffer answer;
    while (!done) {
      call->Read(&answer, nullptr);
      if (!next()) break;
      done = on_answer(BytesOf(answer));
    }
    if (done) context.TryCancel();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  return status;
}

}  // namespace

absl::Status WaitForHealth(const std::shared_ptr<grpc::Channel>& channel,
                           const std::string& service, bool serving,
                           absl::Duration timeout) {
  bool found = false;
  int last = 0;
  const absl::Time deadline = absl::Now() + timeout;
  grpc::Status status;
  do {
    status = CallRaw(
        channel, "/grpc.health.v1.Health/Watch", StringField(1, service),
        deadline - absl::Now(), [&](const std::string& answer) {
          // Field 1 is the ServingStatus; 1 is SERVING.
          last = answer.size() >= 2 && answer[0] == 0x08 ? answer[1] : 0;
          found = (last == 1) == serving;
          return found;
        });
    // A new channel may begin with the connection of an old one, whose server
    // is gone.
  } while (!found && status.error_code() == grpc::StatusCode::UNAVAILABLE &&
           absl::Now() < deadline);
  if (found) return absl::OkStatus();
  const absl::Status error = FromGrpcStatus(status);
  return absl::Status(
      error.code(), absl::StrCat("health of \"", service, "\" is ", last, ": ",
                                 std::string(error.message())));
}

std::string ReflectedServices(const std::shared_ptr<grpc::Channel>& channel) {
  std::string services;
  // Field 7 of the request is list_services, whose value does not matter.
  CallRaw(channel,
          "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
          StringField(7, "*"), absl::Seconds(30),
          [&services](const std::string& answer) {
            services = answer;
            return true;
          });
  return services;
}

}  // namespace tern
