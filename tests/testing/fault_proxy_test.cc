#include "tests/testing/fault_proxy.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/support/byte_buffer.h"
#include "gtest/gtest.h"
#include "util/credentials.h"

namespace tern {
namespace {

using Way = FaultProxy::Way;
using Kind = FaultProxy::Kind;
using Messages = std::vector<std::string>;

constexpr absl::Duration kPatience = absl::Seconds(30);
// Long enough that what is cut off would have come.
constexpr absl::Duration kSilence = absl::Milliseconds(200);

std::string TextOf(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()),
                     slice.size());
}

grpc::ByteBuffer BufferOf(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

// Sends every message back; a call ends when its requests do, of the method
// "Refuse" with an error. Remembers what came.
class Echo : public grpc::CallbackGenericService {
 public:
  Echo() {
    auto credentials = Credentials::Create({});
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(this);
    int port = 0;
    EXPECT_TRUE(
        (*credentials)->AddListeningPort("127.0.0.1:0", &builder, &port).ok());
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~Echo() override { server_->Shutdown(); }

  const std::string& address() const { return address_; }

  Messages received() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return received_;
  }
  bool AwaitReceived(size_t n, absl::Duration timeout) const
      ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const auto have = [this, n]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return received_.size() >= n;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&have), timeout);
  }
  bool AwaitCancelled(absl::Duration timeout) const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&cancelled_), timeout);
  }

 private:
  class Reactor : public grpc::ServerGenericBidiReactor {
   public:
    Reactor(Echo* echo, bool refuses) : echo_(*echo), refuses_(refuses) {
      StartRead(&message_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) {
        Finish(refuses_ ? grpc::Status(grpc::StatusCode::ABORTED, "no", "why")
                        : grpc::Status::OK);
        return;
      }
      {
        absl::MutexLock lock(&echo_.mu_);
        echo_.received_.push_back(TextOf(message_));
      }
      StartWrite(&message_);
    }
    void OnWriteDone(bool ok) override {
      if (ok) {
        StartRead(&message_);
      } else {
        Finish(grpc::Status::CANCELLED);
      }
    }
    void OnCancel() override {
      absl::MutexLock lock(&echo_.mu_);
      echo_.cancelled_ = true;
    }
    void OnDone() override { delete this; }

   private:
    Echo& echo_;
    const bool refuses_;
    grpc::ByteBuffer message_;
  };

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new Reactor(this, context->method() == "/test/Refuse");
  }

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  mutable absl::Mutex mu_;
  Messages received_ ABSL_GUARDED_BY(mu_);
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

// A caller's stream.
class Stream {
 public:
  Stream(const std::string& address, const std::string& method) {
    auto channel = (*Credentials::Create({}))->CreateChannel(address);
    grpc::GenericStub stub(*channel);
    call_ = stub.PrepareCall(&context_, "/test/" + method, &queue_);
    call_->StartCall(Tag(kStart));
    EXPECT_TRUE(Await(kStart));
  }
  ~Stream() {
    context_.TryCancel();
    if (!finished_) Finish();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // Of a stream that has ended it has no effect.
  void Write(const std::string& text) {
    call_->Write(BufferOf(text), Tag(kWrite));
    Await(kWrite);
  }
  void WritesDone() {
    call_->WritesDone(Tag(kWrite));
    Await(kWrite);
  }
  // Nothing when none comes in time, or the stream has ended.
  absl::optional<std::string> Read(absl::Duration timeout = kPatience) {
    if (!reading_) call_->Read(&buffer_, Tag(kRead));
    reading_ = true;
    if (!Await(kRead, timeout)) return {};
    reading_ = false;
    return TextOf(buffer_);
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, Tag(kFinish));
    Await(kFinish);
    finished_ = true;
    return status;
  }
  void Cancel() { context_.TryCancel(); }

 private:
  enum Op { kStart, kWrite, kRead, kFinish, kOps };
  static void* Tag(Op op) { return reinterpret_cast<void*>(op); }

  // Whether the operation has ended, and well.
  bool Await(Op op, absl::Duration timeout = kPatience) {
    const absl::Time deadline = absl::Now() + timeout;
    while (!ended_[op]) {
      void* tag = nullptr;
      bool ok = false;
      const auto next =
          queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(deadline));
      if (next != grpc::CompletionQueue::GOT_EVENT) return false;
      ended_[reinterpret_cast<intptr_t>(tag)] = true;
      ok_[reinterpret_cast<intptr_t>(tag)] = ok;
    }
    ended_[op] = false;
    return ok_[op];
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer buffer_;
  bool ended_[kOps] = {};
  bool ok_[kOps] = {};
  bool reading_ = false;
  bool finished_ = false;
};

class FaultProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = FaultProxy::Start();
    ASSERT_TRUE(started.ok()) << started.status();
    proxy_ = *std::move(started);
    proxy_->SetTarget(echo_.address());
  }

  // Writes three messages and ends; what came back.
  Messages Talk(grpc::Status* status, const std::string& method = "Talk") {
    Stream stream(proxy_->address(), method);
    for (const char* text : {"one", "two", "three"}) stream.Write(text);
    stream.WritesDone();
    Messages messages;
    while (const auto message = stream.Read()) messages.push_back(*message);
    *status = stream.Finish();
    return messages;
  }

  Echo echo_;
  std::unique_ptr<FaultProxy> proxy_;
};

TEST_F(FaultProxyTest, CarriesMessagesAndTheStatusBothWays) {
  grpc::Status status;
  EXPECT_EQ(Talk(&status), Messages({"one", "two", "three"}));
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(echo_.received(), Messages({"one", "two", "three"}));
  Talk(&status, "Refuse");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(status.error_message(), "no");
  EXPECT_EQ(status.error_details(), "why");
  EXPECT_EQ(proxy_->n_messages("Talk", Way::kThere), 3);
  EXPECT_EQ(proxy_->n_messages("Talk", Way::kBack), 3);
  EXPECT_EQ(proxy_->n_happened(), 0);
}

TEST_F(FaultProxyTest, LargeAndEmptyMessagesPassUnchanged) {
  Stream stream(proxy_->address(), "Talk");
  const std::string large(3 << 20, 'x');
  stream.Write(large);
  EXPECT_EQ(stream.Read(), large);
  stream.Write("");
  EXPECT_EQ(stream.Read(), "");
}

TEST_F(FaultProxyTest, FaultsHappenOnceToTheMessageTheyAreFor) {
  grpc::Status status;
  proxy_->Add({Kind::kDuplicate, "Other", Way::kThere});
  proxy_->Add({Kind::kDuplicate, "Talk", Way::kThere});
  EXPECT_EQ(Talk(&status), Messages({"one", "one", "two", "three"}));
  proxy_->Add({Kind::kSwallow, "Talk", Way::kBack});
  EXPECT_EQ(Talk(&status), Messages({"two", "three"}));
  EXPECT_EQ(echo_.received().size(), 7);
  // 'o' is 0x6f; its lowest bit makes it 'n'.
  proxy_->Add({Kind::kCorrupt, "Talk", Way::kThere, 24});
  EXPECT_EQ(Talk(&status), Messages({"nne", "two", "three"}));
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(Talk(&status), Messages({"one", "two", "three"}));
  EXPECT_EQ(proxy_->n_happened(), 3);
}

TEST_F(FaultProxyTest, ARepeatedCallIsMadeTwiceAndAnsweredOnce) {
  Stream stream(proxy_->address(), "Talk");
  proxy_->Add({Kind::kRepeatCall, "Talk", Way::kThere});
  stream.Write("one");
  EXPECT_EQ(stream.Read(), "one");
  EXPECT_TRUE(echo_.AwaitReceived(2, kPatience));
  EXPECT_EQ(stream.Read(kSilence), absl::nullopt);
}

TEST_F(FaultProxyTest, WhatIsCutOffComesLateAndInOrderAfterHealing) {
  Stream stream(proxy_->address(), "Talk");
  stream.Write("before");
  EXPECT_EQ(stream.Read(), "before");
  proxy_->Cut(Way::kThere);
  stream.Write("one");
  stream.Write("two");
  EXPECT_FALSE(echo_.AwaitReceived(2, kSilence));
  proxy_->Heal();
  EXPECT_EQ(stream.Read(), "one");
  EXPECT_EQ(stream.Read(), "two");
  // The other way alone.
  proxy_->Cut(Way::kBack);
  stream.Write("three");
  EXPECT_TRUE(echo_.AwaitReceived(4, kPatience));
  EXPECT_EQ(stream.Read(kSilence), absl::nullopt);
  proxy_->Heal();
  EXPECT_EQ(stream.Read(), "three");
}

TEST_F(FaultProxyTest, CallsThatBeginWhileCutOffHangAndBeginAfterHealing) {
  proxy_->Cut();
  Stream stream(proxy_->address(), "Talk");
  stream.Write("one");
  EXPECT_EQ(stream.Read(kSilence), absl::nullopt);
  EXPECT_TRUE(echo_.received().empty());
  proxy_->Heal();
  EXPECT_EQ(stream.Read(), "one");
}

// The other end goes on with what nobody wants any more.
TEST_F(FaultProxyTest, ACancelledCallLivesOnBehindACut) {
  Stream stream(proxy_->address(), "Talk");
  stream.Write("one");
  EXPECT_EQ(stream.Read(), "one");
  proxy_->Cut();
  stream.Cancel();
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(echo_.AwaitCancelled(kSilence));
  proxy_->Heal();
  EXPECT_TRUE(echo_.AwaitCancelled(kPatience));
}

TEST_F(FaultProxyTest, ACutMayBeOfOneMethodOnly) {
  proxy_->CutOnly("Talk");
  proxy_->Cut();
  Stream talk(proxy_->address(), "Talk");
  talk.Write("one");
  Stream other(proxy_->address(), "Other");
  other.Write("two");
  EXPECT_EQ(other.Read(), "two");
  EXPECT_EQ(talk.Read(kSilence), absl::nullopt);
  proxy_->Heal();
  EXPECT_EQ(talk.Read(), "one");
}

TEST_F(FaultProxyTest, DelaysAreOfEachMessageAndKeepTheOrder) {
  Stream stream(proxy_->address(), "Talk");
  stream.Write("warm");
  EXPECT_EQ(stream.Read(), "warm");
  constexpr absl::Duration kDelay = absl::Milliseconds(100);
  proxy_->Delay(kDelay);
  const absl::Time begin = absl::Now();
  for (const char* text : {"one", "two", "three"}) stream.Write(text);
  for (const char* text : {"one", "two", "three"}) {
    EXPECT_EQ(stream.Read(), text);
  }
  const absl::Duration took = absl::Now() - begin;
  EXPECT_GE(took, 2 * kDelay);
  // They travel together.
  EXPECT_LT(took, 5 * kDelay);
}

TEST_F(FaultProxyTest, BrokenStreamsEndForBothSidesAndNewOnesBegin) {
  Stream stream(proxy_->address(), "Talk");
  stream.Write("one");
  EXPECT_EQ(stream.Read(), "one");
  proxy_->BreakStreams();
  EXPECT_EQ(stream.Read(), absl::nullopt);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(echo_.AwaitCancelled(kPatience));
  grpc::Status status;
  EXPECT_EQ(Talk(&status), Messages({"one", "two", "three"}));
  proxy_->Add({Kind::kBreakStream, "Talk", Way::kBack});
  EXPECT_EQ(Talk(&status), Messages());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(FaultProxyTest, AServerThatIsGoneIsUnavailableAndMayMove) {
  auto other = std::make_unique<Echo>();
  proxy_->SetTarget(other->address());
  grpc::Status status;
  EXPECT_EQ(Talk(&status).size(), 3);
  other.reset();
  Stream stream(proxy_->address(), "Talk");
  EXPECT_EQ(stream.Read(), absl::nullopt);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  proxy_->SetTarget(echo_.address());
  EXPECT_EQ(Talk(&status).size(), 3);
}

TEST_F(FaultProxyTest, GoesAwayWithCallsUnderWayAndCutOff) {
  Stream stream(proxy_->address(), "Talk");
  stream.Write("one");
  EXPECT_EQ(stream.Read(), "one");
  proxy_->Cut();
  Stream waiting(proxy_->address(), "Talk");
  stream.Write("two");
  proxy_.reset();
  EXPECT_EQ(stream.Read(), absl::nullopt);
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace tern
