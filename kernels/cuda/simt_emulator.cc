#include "kernels/cuda/simt_emulator.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/emulator_memory.h"
#include "kernels/cuda/fiber.h"

namespace tern::simt {
namespace {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 128;
constexpr int kThreadsMax = 1024;
constexpr int kSharedBytesMax = 227 * 1024;
constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kCopyBytes = 16;

const char* Name(emulated::Collective what) {
  switch (what) {
    case emulated::Collective::kSyncThreads:
      return "SyncThreads";
    case emulated::Collective::kSyncWarp:
      return "SyncWarp";
    case emulated::Collective::kShuffle:
      return "Shuffle";
    case emulated::Collective::kBallot:
      return "Ballot";
    case emulated::Collective::kMmaU8S8:
      return "MmaU8S8";
    case emulated::Collective::kMmaS8S8:
      return "MmaS8S8";
    case emulated::Collective::kMmaF16:
      return "MmaF16";
    case emulated::Collective::kLoadMatrix1:
    case emulated::Collective::kLoadMatrix2:
    case emulated::Collective::kLoadMatrix4:
      return "LoadMatrix";
    case emulated::Collective::kLoadMatrixTransposed1:
    case emulated::Collective::kLoadMatrixTransposed2:
    case emulated::Collective::kLoadMatrixTransposed4:
      return "LoadMatrixTransposed";
    case emulated::Collective::kWgmma:
      return "WgmmaU8S8";
  }
  return "?";
}

struct Copy {
  size_t offset;  // in shared memory
  uint8_t bytes[kCopyBytes];
};

// Numbers that tensor cores will add to sums.
struct Product {
  struct Chunk {
    size_t offset;  // in shared memory
    uint8_t bytes[kCopyBytes];
  };
  int32_t* sums;
  std::vector<int32_t> product;
  std::vector<Chunk> made_of;
};

struct Thread {
  explicit Thread(size_t stack_bytes) : fiber(stack_bytes) {}

  Fiber fiber;
  bool waits = false;
  bool done = false;
  std::vector<Copy> copies;              // not committed
  std::deque<std::vector<Copy>> groups;  // committed, oldest first
  bool fenced = false;                   // since the last commit
  std::vector<Product> products;
  std::deque<std::vector<Product>> product_groups;
};

// Lanes, or all threads of a block, that wait for each other.
struct Meeting {
  int arrived = 0;
  emulated::Collective what = emulated::Collective::kSyncWarp;
  void* operands[kWarpgroup] = {};
};

}  // namespace

// Everything of one emulator; while a kernel runs, `running` points to it.
class Emulator::State {
 public:
  explicit State(uint32_t seed) : rng_(seed) {}

  absl::Status RunBlocks(const LaunchShape& shape,
                         const std::function<void()>& kernel);
  void Allow(const void* begin, size_t bytes, bool writable) {
    global_.Allow(begin, bytes, writable);
  }

  const emulated::Place& here() const { return here_; }
  uint8_t* shared() { return shared_.data(); }
  void CountBankConflicts(int n) { bank_conflicts_ += n; }
  int64_t bank_conflicts() const { return bank_conflicts_; }
  void WaitForBlock();
  // `lanes` threads from a multiple of it, a warp or a warpgroup.
  void WaitForLanes(int lanes, emulated::Collective what, void* operands,
                    void (*combine)(void* const* lanes));
  void CheckGlobal(const void* address, size_t n, bool write);
  void CheckShared(const void* address, size_t n, bool write, bool atomic);
  void BeginCopy(void* shared, const void* global, bool valid);
  void CommitCopies();
  void WaitForCopies(int pending);
  void CheckTensorCoreRead(const void* chunk);
  void FenceProducts() { threads_[here_.thread]->fenced = true; }
  void AddLater(int32_t* sums, const int32_t* product, int n_sums,
                const uint8_t* const* chunks, int n_chunks);
  void CommitProducts();
  void WaitForProducts(int pending);
  void FenceShared() { shared_.Fence(here_.thread); }

 private:
  static void Entry(void* state);
  void RunThread();
  void RunBlock(int x, int y, int z);
  // Lets the next thread that can run do so; returns when this one may go on.
  void GoOn();
  void Wake(int begin, int end);
  // A fiber that fails is left as it is: nothing on its stack is destroyed, so
  // that what runs there owns no memory.
  [[noreturn]] void Fail(std::string what);
  void DescribeStandstill();
  size_t SharedOffset(const void* address, size_t n, const char* verb);
  Moment Now() const {
    return {here_.thread, block_epoch_, warp_epoch_[here_.thread / kWarp]};
  }

  std::mt19937 rng_;
  int64_t bank_conflicts_ = 0;
  GlobalMemoryChecker global_;
  SharedMemoryChecker shared_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Fiber main_;

  // Of the running block.
  const std::function<void()>* kernel_ = nullptr;
  emulated::Place here_ = {};
  std::deque<int> ready_;
  Meeting block_meeting_;
  std::vector<Meeting> warp_meetings_;
  std::vector<Meeting> warpgroup_meetings_;
  uint32_t block_epoch_ = 0;
  std::vector<uint32_t> warp_epoch_;
  int n_done_ = 0;
  std::string error_;
};

namespace {
thread_local Emulator::State* running = nullptr;
}  // namespace

absl::Status Emulator::State::RunBlocks(const LaunchShape& shape,
                                        const std::function<void()>& kernel) {
  const int64_t blocks =
      static_cast<int64_t>(shape.grid_x) * shape.grid_y * shape.grid_z;
  if (shape.grid_x < 1 || shape.grid_y < 1 || shape.grid_z < 1 ||
      shape.grid_y > 65535 || shape.grid_z > 65535 || shape.threads < kWarp ||
      shape.threads > kThreadsMax || shape.threads % kWarp != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no GPU takes a grid of ", shape.grid_x, " x ", shape.grid_y, " x ",
        shape.grid_z, " blocks of ", shape.threads, " threads"));
  }
  if (shape.shared_bytes < 0 || shape.shared_bytes > kSharedBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a block has at most ", kSharedBytesMax,
                     " bytes of shared memory, not ", shape.shared_bytes));
  }
  while (threads_.size() < static_cast<size_t>(shape.threads)) {
    threads_.push_back(std::make_unique<Thread>(kStackBytes));
  }
  kernel_ = &kernel;
  error_.clear();
  here_.threads = shape.threads;
  here_.grid[0] = shape.grid_x;
  here_.grid[1] = shape.grid_y;
  here_.grid[2] = shape.grid_z;
  std::vector<int64_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), rng_);
  State* const outer = std::exchange(running, this);
  for (int64_t block : order) {
    shared_.Reset(shape.shared_bytes);
    RunBlock(block % shape.grid_x, block / shape.grid_x % shape.grid_y,
             block / shape.grid_x / shape.grid_y);
    if (!error_.empty()) break;
  }
  running = outer;
  return error_.empty() ? absl::OkStatus() : absl::InternalError(error_);
}

void Emulator::State::RunBlock(int x, int y, int z) {
  here_.block[0] = x;
  here_.block[1] = y;
  here_.block[2] = z;
  const int n_warps = here_.threads / kWarp;
  block_meeting_ = Meeting();
  warp_meetings_.assign(n_warps, Meeting());
  warpgroup_meetings_.assign(here_.threads / kWarpgroup + 1, Meeting());
  block_epoch_ = 0;
  warp_epoch_.assign(n_warps, 0);
  n_done_ = 0;
  ready_.clear();
  std::vector<int> warps(n_warps);
  std::iota(warps.begin(), warps.end(), 0);
  std::shuffle(warps.begin(), warps.end(), rng_);
  for (int warp : warps) {
    const int first = rng_() % kWarp;
    for (int lane = 0; lane < kWarp; ++lane) {
      ready_.push_back(warp * kWarp + (first + lane) % kWarp);
    }
  }
  for (int i = 0; i < here_.threads; ++i) {
    Thread& thread = *threads_[i];
    thread.waits = thread.done = false;
    thread.copies.clear();
    thread.groups.clear();
    thread.fenced = false;
    thread.products.clear();
    thread.product_groups.clear();
    thread.fiber.Start(&State::Entry, this);
  }
  here_.thread = ready_.front();
  ready_.pop_front();
  Fiber::Switch(&main_, &threads_[here_.thread]->fiber);
  if (error_.empty() && n_done_ < here_.threads) DescribeStandstill();
  if (error_.empty()) return;
  error_ = absl::StrCat("block (", x, ", ", y, ", ", z, "), thread ",
                        here_.thread, " ", error_);
}

void Emulator::State::Entry(void* state) {
  static_cast<State*>(state)->RunThread();
}

void Emulator::State::RunThread() {
  (*kernel_)();
  Thread& self = *threads_[here_.thread];
  bool copies = !self.copies.empty();
  for (const auto& group : self.groups) copies = copies || !group.empty();
  if (copies) Fail("leaves with copies under way");
  if (!self.products.empty() || !self.product_groups.empty()) {
    Fail("leaves with products under way");
  }
  self.done = true;
  ++n_done_;
  GoOn();
}

void Emulator::State::GoOn() {
  const int thread = here_.thread;
  Fiber* next = &main_;
  if (!ready_.empty()) {
    here_.thread = ready_.front();
    ready_.pop_front();
    next = &threads_[here_.thread]->fiber;
  }
  Fiber::Switch(&threads_[thread]->fiber, next);
}

void Emulator::State::Wake(int begin, int end) {
  // Now these first, now the others: no order may matter.
  const bool first = rng_() % 2 == 0;
  for (int i = begin; i < end; ++i) {
    if (i == here_.thread) continue;
    threads_[i]->waits = false;
    if (first) {
      ready_.push_front(i);
    } else {
      ready_.push_back(i);
    }
  }
}

void Emulator::State::Fail(std::string what) {
  error_ = std::move(what);
  Fiber::Switch(&threads_[here_.thread]->fiber, &main_);
  abort();  // nobody goes on with a block that failed
}

void Emulator::State::DescribeStandstill() {
  for (int i = 0; i < here_.threads; ++i) {
    if (!threads_[i]->waits) continue;
    const Meeting& warp = warp_meetings_[i / kWarp];
    const Meeting& warpgroup = warpgroup_meetings_[i / kWarpgroup];
    here_.thread = i;
    error_ = absl::StrCat("waits at ",
                          Name(warp.arrived > 0        ? warp.what
                               : warpgroup.arrived > 0 ? warpgroup.what
                                                       : block_meeting_.what),
                          " for threads that wait elsewhere or have left (",
                          n_done_, " of ", here_.threads, " have left)");
    return;
  }
}

void Emulator::State::WaitForBlock() {
  block_meeting_.what = emulated::Collective::kSyncThreads;
  if (++block_meeting_.arrived < here_.threads) {
    threads_[here_.thread]->waits = true;
    GoOn();
    return;
  }
  block_meeting_.arrived = 0;
  ++block_epoch_;
  for (uint32_t& epoch : warp_epoch_) ++epoch;
  Wake(0, here_.threads);
}

void Emulator::State::WaitForLanes(int lanes, emulated::Collective what,
                                   void* operands,
                                   void (*combine)(void* const* lanes)) {
  const int group = here_.thread / lanes;
  if ((group + 1) * lanes > here_.threads) {
    Fail(absl::StrCat("is at ", Name(what), " without ", lanes, " threads"));
  }
  Meeting& meeting =
      (lanes == kWarp ? warp_meetings_ : warpgroup_meetings_)[group];
  if (meeting.arrived > 0 && meeting.what != what) {
    Fail(absl::StrCat("is at ", Name(what), ", others of its warp at ",
                      Name(meeting.what)));
  }
  meeting.what = what;
  meeting.operands[here_.thread % lanes] = operands;
  if (++meeting.arrived < lanes) {
    threads_[here_.thread]->waits = true;
    GoOn();
    return;
  }
  meeting.arrived = 0;
  if (what == emulated::Collective::kSyncWarp) ++warp_epoch_[group];
  if (combine != nullptr) combine(meeting.operands);
  Wake(group * lanes, (group + 1) * lanes);
}

void Emulator::State::CheckGlobal(const void* address, size_t n, bool write) {
  const char* verb = write ? "writes" : "reads";
  if (reinterpret_cast<uintptr_t>(address) % n != 0) {
    Fail(absl::StrCat(verb, " ", n, " bytes of global memory at an address ",
                      "that is no multiple of it"));
  }
  if (!global_.Allowed(address, n, write)) {
    Fail(
        absl::StrCat(verb, " ", n, " bytes of global memory that are not its"));
  }
}

size_t Emulator::State::SharedOffset(const void* address, size_t n,
                                     const char* verb) {
  const auto begin = reinterpret_cast<uintptr_t>(shared_.data());
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (at < begin || at + n > begin + shared_.bytes()) {
    Fail(absl::StrCat(verb, " ", n, " bytes outside of its ", shared_.bytes(),
                      " bytes of shared memory"));
  }
  if (at % n != 0) {
    Fail(absl::StrCat(verb, " ", n, " bytes of shared memory at offset ",
                      at - begin, ", which is no multiple of it"));
  }
  return at - begin;
}

void Emulator::State::CheckShared(const void* address, size_t n, bool write,
                                  bool atomic) {
  const size_t offset = SharedOffset(address, n, write ? "writes" : "reads");
  const char* error = write ? shared_.Write(Now(), offset, n, atomic)
                            : shared_.Read(Now(), offset, n);
  if (error != nullptr) {
    Fail(absl::StrCat(error, " (shared memory, offset ", offset, ")"));
  }
}

void Emulator::State::BeginCopy(void* shared, const void* global, bool valid) {
  const size_t offset = SharedOffset(shared, kCopyBytes, "copies");
  Copy copy = {offset, {}};
  if (valid) {
    CheckGlobal(global, kCopyBytes, /*write=*/false);
    std::memcpy(copy.bytes, global, kCopyBytes);
  }
  const char* error = shared_.BeginCopy(Now(), offset, kCopyBytes);
  if (error != nullptr) {
    Fail(absl::StrCat(error, " (copy to shared memory, offset ", offset, ")"));
  }
  threads_[here_.thread]->copies.push_back(copy);
}

void Emulator::State::CommitCopies() {
  Thread& self = *threads_[here_.thread];
  self.groups.push_back(std::move(self.copies));
  self.copies.clear();
}

void Emulator::State::WaitForCopies(int pending) {
  Thread& self = *threads_[here_.thread];
  while (self.groups.size() > static_cast<size_t>(pending)) {
    for (const Copy& copy : self.groups.front()) {
      shared_.EndCopy(Now(), copy.offset, kCopyBytes);
      std::memcpy(shared_.data() + copy.offset, copy.bytes, kCopyBytes);
    }
    self.groups.pop_front();
  }
}

void Emulator::State::CheckTensorCoreRead(const void* chunk) {
  const size_t offset = SharedOffset(chunk, kCopyBytes, "multiplies");
  const char* error = shared_.ReadByTensorCores(Now(), offset, kCopyBytes);
  if (error != nullptr) {
    Fail(absl::StrCat(error, " (shared memory, offset ", offset, ")"));
  }
}

void Emulator::State::AddLater(int32_t* sums, const int32_t* product,
                               int n_sums, const uint8_t* const* chunks,
                               int n_chunks) {
  Thread& self = *threads_[here_.thread];
  if (!self.fenced) Fail("multiplies without WgmmaFence() before");
  Product later = {sums, std::vector<int32_t>(product, product + n_sums), {}};
  for (int i = 0; i < n_chunks; ++i) {
    const auto offset = static_cast<size_t>(chunks[i] - shared_.data());
    later.made_of.push_back({offset, {}});
    std::memcpy(later.made_of.back().bytes, chunks[i], kCopyBytes);
  }
  self.products.push_back(std::move(later));
}

void Emulator::State::CommitProducts() {
  Thread& self = *threads_[here_.thread];
  self.product_groups.push_back(std::move(self.products));
  self.products.clear();
  self.fenced = false;
}

void Emulator::State::WaitForProducts(int pending) {
  Thread& self = *threads_[here_.thread];
  while (self.product_groups.size() > static_cast<size_t>(pending)) {
    for (const Product& product : self.product_groups.front()) {
      for (const Product::Chunk& chunk : product.made_of) {
        const char* error = shared_.Read(Now(), chunk.offset, kCopyBytes);
        if (error != nullptr || std::memcmp(shared_.data() + chunk.offset,
                                            chunk.bytes, kCopyBytes) != 0) {
          Fail(absl::StrCat(
              "waits for products of what was written again (shared memory, "
              "offset ",
              chunk.offset, ")"));
        }
      }
      for (size_t i = 0; i < product.product.size(); ++i) {
        product.sums[i] += product.product[i];
      }
    }
    self.product_groups.pop_front();
  }
}

Emulator::Emulator(uint32_t seed) : state_(std::make_unique<State>(seed)) {}
Emulator::~Emulator() = default;

int64_t Emulator::bank_conflicts() const { return state_->bank_conflicts(); }

void Emulator::Allow(const void* begin, size_t bytes, bool writable) {
  state_->Allow(begin, bytes, writable);
}

absl::Status Emulator::RunBlocks(const LaunchShape& shape,
                                 const std::function<void()>& kernel) {
  return state_->RunBlocks(shape, kernel);
}

namespace emulated {

const Place& Here() { return running->here(); }
void WaitForBlock() { running->WaitForBlock(); }
void WaitForWarp(Collective what, void* operands,
                 void (*combine)(void* const* lanes)) {
  running->WaitForLanes(kWarp, what, operands, combine);
}
void WaitForWarpgroup(Collective what, void* operands,
                      void (*combine)(void* const* lanes)) {
  running->WaitForLanes(kWarpgroup, what, operands, combine);
}
void CheckGlobal(const void* address, size_t n, bool write) {
  running->CheckGlobal(address, n, write);
}
void CheckSharedRead(const void* address, size_t n) {
  running->CheckShared(address, n, /*write=*/false, /*atomic=*/false);
}
void CheckSharedWrite(const void* address, size_t n, bool atomic) {
  running->CheckShared(address, n, /*write=*/true, atomic);
}
uint8_t* SharedMemoryBegin() { return running->shared(); }
void CountBankConflicts(int n) { running->CountBankConflicts(n); }
void BeginCopy(void* shared, const void* global, bool valid) {
  running->BeginCopy(shared, global, valid);
}
void CommitCopies() { running->CommitCopies(); }
void WaitForCopies(int pending) { running->WaitForCopies(pending); }
void CheckTensorCoreRead(const void* chunk) {
  running->CheckTensorCoreRead(chunk);
}
void FenceProducts() { running->FenceProducts(); }
void AddLater(int32_t* sums, const int32_t* product, int n_sums,
              const uint8_t* const* chunks, int n_chunks) {
  running->AddLater(sums, product, n_sums, chunks, n_chunks);
}
void CommitProducts() { running->CommitProducts(); }
void WaitForProducts(int pending) { running->WaitForProducts(pending); }
void FenceShared() { running->FenceShared(); }

}  // namespace emulated
}  // namespace tern::simt
