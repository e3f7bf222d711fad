#include "tests/testing/fault_proxy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/slice.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/stub_options.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Messages of a call that wait, one way; more are not read before there is
// room.
constexpr size_t kWaitingMax = 64;

constexpr absl::Duration kEndPatience = absl::Seconds(30);

// "/tern.v1.WorkerService/ExecuteSteps" -> "ExecuteSteps".
std::string LastPart(const std::string& method) {
  return method.substr(method.rfind('/') + 1);
}

// Flips a bit. False when there is none.
bool FlipBit(uint64_t bit, grpc::ByteBuffer* message) {
  grpc::Slice whole;
  if (!message->DumpToSingleSlice(&whole).ok() || whole.size() == 0) {
    return false;
  }
  std::string bytes(reinterpret_cast<const char*>(whole.begin()), whole.size());
  const uint64_t at = bit % (8 * bytes.size());
  bytes[at / 8] = static_cast<char>(bytes[at / 8] ^ (1 << (at % 8)));
  const grpc::Slice slice(bytes);
  *message = grpc::ByteBuffer(&slice, 1);
  return true;
}

}  // namespace

// One call that is carried: a server's end towards the caller, the front, and a
// client's end towards the target, the back. All but the reactions is called
// under the proxy's lock; gRPC never calls back from inside of what starts an
// operation.
//
// The proxy holds it until both ends are done.
class FaultProxy::Call : public std::enable_shared_from_this<Call> {
 public:
  // A call that came, if there is a context.
  Call(FaultProxy* proxy, std::string method,
       grpc::CallbackServerContext* context)
      : proxy_(*proxy),
        method_(std::move(method)),
        front_context_(context),
        name_(LastPart(method_)),
        front_(this),
        back_(this) {
    there_.push_back({What::kBegin, {}, Due(), {}});
  }

  // A call for nobody, with one message.
  static std::shared_ptr<Call> Repeat(const Call& of,
                                      const grpc::ByteBuffer& message) {
    auto call = std::make_shared<Call>(&of.proxy_, of.method_, nullptr);
    call->front_finished_ = call->front_done_ = true;
    call->there_.push_back({What::kMessage, message, call->Due(), {}});
    call->there_.push_back({What::kEnd, {}, call->Due(), {}});
    return call;
  }

  grpc::ServerGenericBidiReactor* front() { return &front_; }
  void ReadFront() { front_.StartRead(&read_front_); }

  // Sends what is due and not cut off. Returns when there is something to do
  // next, as far as it is known.
  absl::Time Pump(absl::Time now) {
    proxy_.mu_.AssertHeld();
    absl::Time next = absl::InfiniteFuture();
    while (!writing_there_ && !there_.empty()) {
      Item& item = there_.front();
      if (item.due > now) next = item.due;
      if (item.due > now || proxy_.IsCut(name_, Way::kThere)) break;
      if (item.what == What::kBegin && proxy_.target_ == nullptr) break;
      const Item sent = std::move(item);
      there_.pop_front();
      SendThere(sent);
    }
    if (front_finished_) back_items_.clear();
    while (!writing_back_ && !back_items_.empty() && !front_cancelled_) {
      Item& item = back_items_.front();
      if (item.due > now) next = std::min(next, item.due);
      // What ends the call by force passes a cut.
      const bool forced = item.due == absl::InfinitePast();
      if (item.due > now || (!forced && proxy_.IsCut(name_, Way::kBack))) break;
      const Item sent = std::move(item);
      back_items_.pop_front();
      if (sent.what == What::kMessage) {
        writing_back_ = true;
        write_back_ = sent.message;
        front_.StartWrite(&write_back_);
      } else {
        FinishFront(sent.status, sent.is_from_target);
      }
    }
    if (front_cancelled_ && !writing_back_) {
      back_items_.clear();
      FinishFront(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"),
                  false);
    }
    MaybeRead();
    return next;
  }

  // Ends it, for both sides.
  void Break() {
    proxy_.mu_.AssertHeld();
    there_.clear();
    CancelBack();
    if (front_finished_) return;
    back_items_.clear();
    back_items_.push_back(
        {What::kEnd,
         {},
         absl::InfinitePast(),
         grpc::Status(grpc::StatusCode::UNAVAILABLE, "the connection broke")});
  }

  bool done() const {
    proxy_.mu_.AssertHeld();
    return front_done_ && !back_open_ && (begun_ || there_.empty());
  }

 private:
  enum class What { kBegin, kMessage, kEnd, kCancel };
  struct Item {
    What what;
    grpc::ByteBuffer message;
    absl::Time due;
    grpc::Status status;          // of an end, back
    bool is_from_target = false;  // that end
  };

  class Front : public grpc::ServerGenericBidiReactor {
   public:
    explicit Front(Call* call) : call_(call) {}
    void OnReadDone(bool ok) override { call_->OnFrontRead(ok); }
    void OnWriteDone(bool ok) override { call_->OnFrontWritten(ok); }
    void OnCancel() override { call_->OnFrontCancelled(); }
    void OnDone() override { call_->OnFrontDone(); }

   private:
    Call* const call_;
  };

  class Back
      : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
   public:
    explicit Back(Call* call) : call_(call) {}
    void OnReadDone(bool ok) override { call_->OnBackRead(ok); }
    void OnWriteDone(bool ok) override { call_->OnBackWritten(ok); }
    void OnDone(const grpc::Status& status) override {
      call_->OnBackDone(status);
    }

   private:
    Call* const call_;
  };

  absl::Time Due() const {
    proxy_.mu_.AssertHeld();
    return absl::Now() + proxy_.delay_;
  }

  // What changed may let something go, be over, or be for the pump.
  void Stirred() ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    Pump(absl::Now());
    proxy_.stirred_ = true;
  }

  void SendThere(const Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    if (item.what == What::kBegin) {
      begun_ = back_open_ = held_ = true;
      stub_ = std::make_unique<grpc::GenericStub>(proxy_.target_);
      stub_->PrepareBidiStreamingCall(&context_, method_, grpc::StubOptions(),
                                      &back_);
      back_.AddHold();
      reading_back_ = true;
      back_.StartRead(&read_back_);
      back_.StartCall();
      return;
    }
    if (!held_) return;  // It is over there.
    if (item.what == What::kMessage) {
      writing_there_ = true;
      write_there_ = item.message;
      back_.StartWrite(&write_there_);
    } else if (item.what == What::kEnd) {
      back_.StartWritesDone();
    } else {
      CancelBack();
    }
  }

  void CancelBack() ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    if (!begun_) return;
    context_.TryCancel();
    GiveUpHold();
  }

  void GiveUpHold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    if (!held_) return;
    held_ = false;
    back_.RemoveHold();
  }

  void FinishFront(const grpc::Status& status, bool is_from_target)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    if (front_finished_) return;
    front_finished_ = true;
    if (is_from_target) {
      for (const auto& [key, value] : context_.GetServerTrailingMetadata()) {
        front_context_->AddTrailingMetadata({key.data(), key.size()},
                                            {value.data(), value.size()});
      }
    }
    front_.Finish(status);
  }

  void MaybeRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    if (front_wants_read_ && !front_finished_ && there_.size() < kWaitingMax) {
      front_wants_read_ = false;
      front_.StartRead(&read_front_);
    }
    if (held_ && !reading_back_ && back_items_.size() < kWaitingMax) {
      reading_back_ = true;
      back_.StartRead(&read_back_);
    }
  }

  // Puts a message into its queue, as often and in the state that it is to
  // come.
  void Take(Way way, grpc::ByteBuffer message, std::deque<Item>* queue)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(proxy_.mu_) {
    ++*proxy_.CountOf(name_, way);
    const auto fault =
        std::find_if(proxy_.faults_.begin(), proxy_.faults_.end(),
                     [&](const MessageFault& fault) {
                       return fault.way == way && fault.method == name_;
                     });
    if (fault == proxy_.faults_.end() ||
        (fault->kind == Kind::kCorrupt && !FlipBit(fault->bit, &message))) {
      queue->push_back({What::kMessage, std::move(message), Due(), {}});
      return;
    }
    const Kind kind = fault->kind;
    proxy_.faults_.erase(fault);
    ++proxy_.n_happened_;
    if (kind == Kind::kBreakStream) return Break();
    if (kind == Kind::kRepeatCall) {
      proxy_.calls_.insert(Repeat(*this, message));
    }
    if (kind == Kind::kSwallow) return;
    queue->push_back({What::kMessage, message, Due(), {}});
    if (kind == Kind::kDuplicate) {
      queue->push_back({What::kMessage, std::move(message), Due(), {}});
    }
  }

  void OnFrontRead(bool ok) ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    absl::MutexLock lock(&proxy_.mu_);
    if (ok) {
      front_wants_read_ = true;
      Take(Way::kThere, std::exchange(read_front_, {}), &there_);
    } else if (!front_cancelled_ && !front_finished_) {
      there_.push_back({What::kEnd, {}, Due(), {}});
    }
    Stirred();
  }

  void OnFrontWritten(bool ok) ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    absl::MutexLock lock(&proxy_.mu_);
    writing_back_ = false;
    Stirred();
  }

  void OnFrontCancelled() ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    absl::MutexLock lock(&proxy_.mu_);
    front_cancelled_ = true;
    there_.clear();
    if (begun_) there_.push_back({What::kCancel, {}, Due(), {}});
    Stirred();
  }

  void OnFrontDone() ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    // Goes after the lock.
    const std::shared_ptr<Call> self = shared_from_this();
    absl::MutexLock lock(&proxy_.mu_);
    front_finished_ = front_done_ = true;
    Stirred();
  }

  void OnBackRead(bool ok) ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    absl::MutexLock lock(&proxy_.mu_);
    reading_back_ = false;
    if (ok) {
      Take(Way::kBack, std::exchange(read_back_, {}), &back_items_);
    } else {
      GiveUpHold();
    }
    Stirred();
  }

  void OnBackWritten(bool ok) ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    absl::MutexLock lock(&proxy_.mu_);
    writing_there_ = false;
    Stirred();
  }

  void OnBackDone(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(proxy_.mu_) {
    const std::shared_ptr<Call> self = shared_from_this();
    absl::MutexLock lock(&proxy_.mu_);
    held_ = back_open_ = writing_there_ = false;
    there_.clear();
    back_items_.push_back({What::kEnd, {}, Due(), status, true});
    Stirred();
  }

  FaultProxy& proxy_;
  const std::string method_;
  const std::string name_;
  grpc::CallbackServerContext* const front_context_;  // of a call that came
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericStub> stub_;
  Front front_;
  Back back_;

  // All under the proxy's lock; buffers belong to the operation under way.
  std::deque<Item> there_;
  std::deque<Item> back_items_;
  grpc::ByteBuffer read_front_, write_there_, read_back_, write_back_;
  bool front_wants_read_ = false;
  bool front_cancelled_ = false;
  bool front_finished_ = false;  // Finish() was called
  bool front_done_ = false;
  bool begun_ = false;      // at the target
  bool back_open_ = false;  // begun and not done
  bool held_ = false;       // writes and reads may be started there
  bool reading_back_ = false;
  bool writing_there_ = false;
  bool writing_back_ = false;
};

class FaultProxy::Service : public grpc::CallbackGenericService {
 public:
  explicit Service(FaultProxy* proxy) : proxy_(*proxy) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    absl::MutexLock lock(&proxy_.mu_);
    const auto call =
        std::make_shared<Call>(&proxy_, context->method(), context);
    proxy_.calls_.insert(call);
    call->ReadFront();
    if (proxy_.stopping_) call->Break();
    proxy_.stirred_ = true;
    return call->front();
  }

 private:
  FaultProxy& proxy_;
};

absl::StatusOr<std::unique_ptr<FaultProxy>> FaultProxy::Start() {
  std::unique_ptr<FaultProxy> proxy(new FaultProxy);
  RETURN_IF_ERROR(proxy->Init());
  return proxy;
}

absl::Status FaultProxy::Init() {
  ASSIGN_OR_RETURN(credentials_, Credentials::Create({}));
  service_ = std::make_unique<Service>(this);
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(service_.get());
  int port = 0;
  RETURN_IF_ERROR(
      credentials_->AddListeningPort("127.0.0.1:0", &builder, &port));
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return absl::UnavailableError("cannot listen on 127.0.0.1");
  }
  address_ = absl::StrCat("127.0.0.1:", port);
  pump_ = std::thread([this] { PumpMain(); });
  return absl::OkStatus();
}

FaultProxy::~FaultProxy() {
  if (server_ == nullptr) return;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    cut_there_ = cut_back_ = false;
    for (const auto& call : calls_) call->Break();
    stirred_ = true;
  }
  server_->Shutdown();
  {
    absl::MutexLock lock(&mu_);
    const auto is_over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return calls_.empty();
    };
    CHECK(mu_.AwaitWithTimeout(absl::Condition(&is_over), kEndPatience));
    stirred_ = true;
  }
  pump_.join();
}

void FaultProxy::PumpMain() {
  absl::Time next = absl::InfinitePast();
  while (true) {
    // They go after the lock.
    std::vector<std::shared_ptr<Call>> done;
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithDeadline(absl::Condition(&stirred_), next);
    stirred_ = false;
    if (stopping_ && calls_.empty()) return;
    const absl::Time now = absl::Now();
    next = absl::InfiniteFuture();
    for (auto it = calls_.begin(); it != calls_.end();) {
      next = std::min(next, (*it)->Pump(now));
      if ((*it)->done()) {
        done.push_back(*it);
        it = calls_.erase(it);
      } else {
        ++it;
      }
    }
  }
}

bool FaultProxy::IsCut(const std::string& method, Way way) const {
  if (!cut_method_.empty() && method != cut_method_) return false;
  return way == Way::kThere ? cut_there_ : cut_back_;
}

int64_t* FaultProxy::CountOf(absl::string_view method, Way way) {
  for (Counted& counted : counts_) {
    if (counted.way == way && counted.method == method) {
      return &counted.n_messages;
    }
  }
  counts_.push_back({std::string(method), way, 0});
  return &counts_.back().n_messages;
}

void FaultProxy::SetTarget(const std::string& address) {
  auto channel = credentials_->CreateChannel(address);
  CHECK(channel.ok()) << channel.status();
  absl::MutexLock lock(&mu_);
  target_ = *std::move(channel);
  stirred_ = true;
}

void FaultProxy::Cut(Way way) {
  absl::MutexLock lock(&mu_);
  (way == Way::kThere ? cut_there_ : cut_back_) = true;
}

void FaultProxy::Cut() {
  Cut(Way::kThere);
  Cut(Way::kBack);
}

void FaultProxy::Heal() {
  absl::MutexLock lock(&mu_);
  cut_there_ = cut_back_ = false;
  cut_method_.clear();
  stirred_ = true;
}

void FaultProxy::CutOnly(const std::string& method) {
  absl::MutexLock lock(&mu_);
  cut_method_ = method;
  stirred_ = true;
}

void FaultProxy::Delay(absl::Duration delay) {
  absl::MutexLock lock(&mu_);
  delay_ = delay;
}

void FaultProxy::Add(const MessageFault& fault) {
  absl::MutexLock lock(&mu_);
  faults_.push_back(fault);
}

void FaultProxy::ClearFaults() {
  absl::MutexLock lock(&mu_);
  faults_.clear();
}

void FaultProxy::BreakStreams() {
  absl::MutexLock lock(&mu_);
  for (const auto& call : calls_) call->Break();
  stirred_ = true;
}

int64_t FaultProxy::n_happened() const {
  absl::MutexLock lock(&mu_);
  return n_happened_;
}

bool FaultProxy::AwaitHappened(int64_t n, absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto happened = [this, n]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return n_happened_ >= n;
  };
  return mu_.AwaitWithTimeout(absl::Condition(&happened), timeout);
}

int64_t FaultProxy::n_messages(absl::string_view method, Way way) const {
  absl::MutexLock lock(&mu_);
  for (const Counted& counted : counts_) {
    if (counted.way == way && counted.method == method) {
      return counted.n_messages;
    }
  }
  return 0;
}

}  // namespace tern
