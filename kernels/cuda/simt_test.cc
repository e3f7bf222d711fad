// Every function of simt.h as the emulator computes it, against plain C++, and
// every mistake that the emulator promises to find.

#include "kernels/cuda/simt.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/cuda/simt_probe.h"
#include "kernels/cuda/simt_probe_kernel.h"
#include "kernels/float16.h"

namespace tern::simt {
namespace {

constexpr int kBlocks = 3;
constexpr int kTotal = kBlocks * ProbeKernel::kThreads;

class Probe : public ::testing::Test {
 protected:
  void SetUp() override {
    in_ = RandomProbeInputs(kTotal, 7);
    out_ = RunProbe(in_, &total_);
    ASSERT_EQ(out_.size(), in_.size());
  }
  // Element (row, k) of the fragment spread over the warp of thread `i`.
  const ProbeInput& Lane(int i, int lane) const {
    return in_[i / 32 * 32 + lane];
  }

  std::vector<ProbeInput> in_;
  std::vector<ProbeResult> out_;
  int32_t total_ = 0;
};

TEST_F(Probe, Places) {
  for (int i = 0; i < kTotal; ++i) {
    const int thread = i % ProbeKernel::kThreads;
    EXPECT_EQ(out_[i].place[0], thread);
    EXPECT_EQ(out_[i].place[1], ProbeKernel::kThreads);
    EXPECT_EQ(out_[i].place[2], i / ProbeKernel::kThreads);
    EXPECT_EQ(out_[i].place[3], thread % 32);
    EXPECT_EQ(out_[i].place[4], thread / 32);
  }
  EXPECT_EQ(total_, kBlocks * (64 * 63 / 2));
}

TEST_F(Probe, Shuffles) {
  for (int i = 0; i < kTotal; ++i) {
    const int lane = i % 32;
    EXPECT_EQ(out_[i].shuffle[0], Lane(i, (lane * 5 + 3) % 32).c[0]);
    EXPECT_EQ(out_[i].shuffle[1], Lane(i, lane < 3 ? lane : lane - 3).c[0]);
    EXPECT_EQ(out_[i].shuffle[2], Lane(i, lane > 26 ? lane : lane + 5).c[0]);
    EXPECT_EQ(out_[i].shuffle[3], Lane(i, lane ^ 9).c[0]);
    EXPECT_EQ(out_[i].shuffle64, Lane(i, lane ^ 1).wide[0]);
    for (int j = 0; j < 32; ++j) {
      EXPECT_EQ(out_[i].ballot >> j & 1, Lane(i, j).c[0] % 3 == 0);
    }
  }
}

// The formulas of PTX ISA, "Matrix Fragments for mma.m16n8k32", in its own
// words: where element i of a lane's fragment lies in the matrix.
int GroupId(int lane) { return lane >> 2; }
int ThreadInGroup(int lane) { return lane % 4; }

template <typename Fetch>
void FillA8(Fetch fetch, bool is_signed, int (*a)[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 16; ++i) {
      const int row = (0 <= i && i < 4) || (8 <= i && i < 12)
                          ? GroupId(lane)
                          : GroupId(lane) + 8;
      const int column = i < 8 ? ThreadInGroup(lane) * 4 + (i & 3)
                               : ThreadInGroup(lane) * 4 + (i & 3) + 16;
      const uint32_t byte = fetch(lane)[i / 4] >> (8 * (i % 4)) & 255;
      a[row][column] = is_signed ? static_cast<int8_t>(byte) : byte;
    }
  }
}

TEST_F(Probe, IntegerMma) {
  for (int first = 0; first < kTotal; first += 32) {
    for (bool is_signed : {false, true}) {
      int a[16][32];
      FillA8([&](int lane) { return in_[first + lane].a; }, is_signed, a);
      int b[32][8];
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 8; ++i) {
          const int row = i < 4 ? ThreadInGroup(lane) * 4 + (i & 3)
                                : ThreadInGroup(lane) * 4 + (i & 3) + 16;
          b[row][GroupId(lane)] =
              static_cast<int8_t>(in_[first + lane].b[i / 4] >> (8 * (i % 4)));
        }
      }
      for (int lane = 0; lane < 32; ++lane) {
        const ProbeResult& out = out_[first + lane];
        for (int i = 0; i < 4; ++i) {
          const int row = i < 2 ? GroupId(lane) : GroupId(lane) + 8;
          const int column = ThreadInGroup(lane) * 2 + (i & 1);
          int32_t sum = in_[first + lane].c[i];
          for (int k = 0; k < 32; ++k) sum += a[row][k] * b[k][column];
          EXPECT_EQ(is_signed ? out.mma_s8s8[i] : out.mma_u8s8[i], sum);
        }
      }
    }
  }
}

float HalfAt(uint32_t word, int i) {
  return tern::HalfToFloat(static_cast<uint16_t>(word >> (16 * i)));
}

TEST_F(Probe, FloatMma) {
  for (int first = 0; first < kTotal; first += 32) {
    float a[16][16];
    float b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 8; ++i) {
        const int row = (0 <= i && i < 2) || (4 <= i && i < 6)
                            ? GroupId(lane)
                            : GroupId(lane) + 8;
        const int column = i < 4 ? ThreadInGroup(lane) * 2 + (i & 1)
                                 : ThreadInGroup(lane) * 2 + (i & 1) + 8;
        a[row][column] = HalfAt(in_[first + lane].half_a[i / 2], i % 2);
      }
      for (int i = 0; i < 4; ++i) {
        const int row = i < 2 ? ThreadInGroup(lane) * 2 + (i & 1)
                              : ThreadInGroup(lane) * 2 + (i & 1) + 8;
        b[row][GroupId(lane)] = HalfAt(in_[first + lane].half_b[i / 2], i % 2);
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = i < 2 ? GroupId(lane) : GroupId(lane) + 8;
        const int column = ThreadInGroup(lane) * 2 + (i & 1);
        float sum = static_cast<float>(i);
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        EXPECT_EQ(out_[first + lane].mma_f16[i], sum);
      }
    }
  }
}

TEST_F(Probe, LoadMatrix) {
  const int begins[] = {0, 1, 3};
  const int counts[] = {1, 2, 4};
  for (int i = 0; i < kTotal; ++i) {
    const int lane = i % 32;
    for (int n = 0; n < 3; ++n) {
      for (int m = 0; m < counts[n]; ++m) {
        // Halves of the matrix whose rows lanes 8 m .. 8 m + 7 point to.
        auto half = [&](int row, int column) -> uint32_t {
          uint16_t halves[8];
          std::memcpy(halves, &Lane(i, 8 * m + row).words, sizeof(halves));
          return halves[column];
        };
        const int row = lane / 4;
        const int column = lane % 4 * 2;
        EXPECT_EQ(out_[i].load_matrix[begins[n] + m],
                  half(row, column) | half(row, column + 1) << 16);
        EXPECT_EQ(out_[i].load_matrix_transposed[begins[n] + m],
                  half(column, row) | half(column + 1, row) << 16);
      }
    }
  }
}

TEST_F(Probe, Copies) {
  for (int i = 0; i < kTotal; ++i) {
    const int next = i / 64 * 64 + (i + 1) % 64;
    const Words4 zero = {0, 0, 0, 0};
    EXPECT_EQ(std::memcmp(&out_[i].copied[0], &in_[next].words, 16), 0);
    EXPECT_EQ(std::memcmp(&out_[i].copied[1],
                          next % 2 == 0 ? &in_[next].words : &zero, 16),
              0);
    EXPECT_EQ(std::memcmp(&out_[i].streamed, &in_[i].words, 16), 0);
    EXPECT_EQ(out_[i].coherent, in_[i].c[3]);
  }
}

TEST_F(Probe, Numbers) {
  for (int i = 0; i < kTotal; ++i) {
    const ProbeInput& in = in_[i];
    int32_t dp4a[2] = {in.c[0], in.c[0]};
    for (int j = 0; j < 4; ++j) {
      const int a = in.a[0] >> (8 * j) & 255;
      const int b = static_cast<int8_t>(in.b[0] >> (8 * j));
      dp4a[0] += a * b;
      dp4a[1] += static_cast<int8_t>(a) * b;
    }
    EXPECT_EQ(out_[i].dp4a[0], dp4a[0]);
    EXPECT_EQ(out_[i].dp4a[1], dp4a[1]);
    const float x = in.x[0], y = in.x[1], z = in.x[2];
    const uint16_t half_x = tern::FloatToHalf(x);
    const float half_y = tern::HalfToFloat(tern::FloatToHalf(y));
    const uint32_t numbers[] = {FloatBits(std::fma(x, y, z)),
                                FloatBits(x / y),
                                FloatBits(std::sqrt(x * x + z * z)),
                                FloatBits(std::nearbyint(x)),
                                half_x,
                                FloatBits(half_y),
                                FloatBits(x * y + z),
                                FloatBits(x / z)};
    for (int j = 0; j < 8; ++j) {
      EXPECT_EQ(out_[i].numbers[j], numbers[j]) << "number " << j;
    }
    // Schoolbook, by halves.
    const uint64_t p = in.wide[0], q = in.wide[1], low = 0xffffffff;
    const uint64_t p0q0 = (p & low) * (q & low), p1q0 = (p >> 32) * (q & low);
    const uint64_t p0q1 = (p & low) * (q >> 32), p1q1 = (p >> 32) * (q >> 32);
    const uint64_t middle = (p0q0 >> 32) + (p1q0 & low) + (p0q1 & low);
    EXPECT_EQ(out_[i].high,
              p1q1 + (p1q0 >> 32) + (p0q1 >> 32) + (middle >> 32));
  }
}

// A kernel whose body is given by a test.
struct AnyKernel {
  static constexpr int kThreads = 1024;
  static constexpr int kBlocksPerSm = 1;
  struct Args {
    std::function<void()> body;
  };
  static void Run(const Args& args) { args.body(); }
};

// What the emulator says of two warps and 64 words of shared memory.
std::string Verdict(std::function<void()> body, const void* global = nullptr,
                    size_t global_bytes = 0) {
  Emulator emulator;
  if (global != nullptr) {
    emulator.AllowRead(static_cast<const uint8_t*>(global), global_bytes);
  }
  LaunchShape shape;
  shape.threads = 64;
  shape.shared_bytes = 256;
  return std::string(emulator.Run<AnyKernel>(shape, {body}).message());
}

uint32_t* Shared() { return reinterpret_cast<uint32_t*>(SharedMemory()); }

#define EXPECT_FINDS(body, text)                                 \
  do {                                                           \
    const std::string verdict = Verdict(body);                   \
    EXPECT_NE(verdict.find(text), std::string::npos) << verdict; \
  } while (false)

TEST(Emulator, FindsThreadsThatWaitElsewhere) {
  EXPECT_FINDS(
      [] {
        if (ThreadIndex() != 5) SyncThreads();
      },
      "waits at SyncThreads for threads that wait elsewhere or have "
      "left (1 of 64");
  EXPECT_FINDS(
      [] {
        if (ThreadIndex() != 5) SyncWarp();
      },
      "SyncWarp");
  EXPECT_FINDS([] { LaneIndex() < 16 ? SyncWarp() : SyncThreads(); }, "waits");
  EXPECT_FINDS(
      [] {
        if (LaneIndex() < 16)
          Ballot(true);
        else
          ShuffleXor(1, 1);
      },
      "others of its warp at");
  EXPECT_FINDS(
      [] {
        int32_t c[16][4];
        const uint32_t a[4] = {};
        if (WarpIndex() == 1) WgmmaU8S8(c, a, Shared());
      },
      "WgmmaU8S8 without 128 threads");
  EXPECT_EQ(Verdict([] {
              if (WarpIndex() == 1) SyncWarp();
            }),
            "");
}

TEST(Emulator, FindsAccessesOutOfBounds) {
  EXPECT_FINDS([] { StoreShared(Shared() + 64, 1u); }, "outside of its 256");
  EXPECT_FINDS([] { LoadShared(Shared() - 1); }, "outside of its 256");
  EXPECT_FINDS([] { LoadShared(reinterpret_cast<Words4*>(Shared() + 1)); },
               "no multiple");
  alignas(16) const uint32_t words[8] = {};
  auto read = [&words](int i) { return [&words, i] { Load(&words[i]); }; };
  EXPECT_EQ(Verdict(read(7), words, sizeof(words)), "");
  EXPECT_NE(Verdict(read(8), words, sizeof(words)).find("that are not its"),
            std::string::npos);
  auto stream = [&words](int i) {
    return
        [&words, i] { LoadStream(reinterpret_cast<const Words4*>(&words[i])); };
  };
  EXPECT_EQ(Verdict(stream(4), words, sizeof(words)), "");
  EXPECT_NE(Verdict(stream(3), words, sizeof(words)).find("no multiple"),
            std::string::npos);
  uint32_t* writable = const_cast<uint32_t*>(words);
  EXPECT_NE(Verdict([=] { Store(writable, 1u); }, words, sizeof(words))
                .find("that are not its"),
            std::string::npos);
}

TEST(Emulator, FindsRacesInSharedMemory) {
  const int no_barrier = 0, warp_barrier = 1, block_barrier = 2;
  auto exchange = [](int barrier, int distance) {
    return [=] {
      StoreShared(&Shared()[ThreadIndex()], 1u);
      if (barrier == 1) SyncWarp();
      if (barrier == 2) SyncThreads();
      LoadShared(&Shared()[(ThreadIndex() + distance) % 64]);
    };
  };
  // Written, then read: by the same thread, its warp, its block.
  EXPECT_EQ(Verdict(exchange(no_barrier, 0)), "");
  EXPECT_NE(Verdict(exchange(no_barrier, 1)), "");
  EXPECT_NE(Verdict(exchange(warp_barrier, 1)), "");
  EXPECT_EQ(Verdict(exchange(block_barrier, 1)), "");
  EXPECT_EQ(Verdict([] {
              StoreShared(&Shared()[ThreadIndex()], 1u);
              SyncWarp();
              LoadShared(&Shared()[ThreadIndex() ^ 1]);
            }),
            "");
  // Read, then written.
  EXPECT_FINDS(
      [] {
        StoreShared(&Shared()[ThreadIndex()], 1u);
        SyncThreads();
        LoadShared(&Shared()[ThreadIndex() ^ 32]);
        StoreShared(&Shared()[ThreadIndex()], 2u);
      },
      "without a barrier");
  EXPECT_FINDS([] { StoreShared(Shared(), 1u); }, "without a barrier");
  EXPECT_FINDS([] { LoadShared(&Shared()[3]); }, "never written");
  EXPECT_EQ(Verdict([] {
              if (ThreadIndex() == 0) {
                StoreShared(reinterpret_cast<int32_t*>(Shared()), 0);
              }
              SyncThreads();
              AtomicAddShared(reinterpret_cast<int32_t*>(Shared()), 1);
            }),
            "");
}

// Rows of 16 bytes, `apart` bytes from each other.
int64_t BankConflicts(int apart) {
  Emulator emulator;
  LaunchShape shape;
  shape.threads = 32;
  shape.shared_bytes = 8 * 256;
  auto body = [apart] {
    for (int i = LaneIndex(); i < 8 * 64; i += 32) {
      StoreShared(&Shared()[i], 0u);
    }
    SyncWarp();
    uint32_t m[1];
    LoadMatrix(m, SharedMemory() + LaneIndex() % 8 * apart);
  };
  EXPECT_TRUE(emulator.Run<AnyKernel>(shape, {body}).ok());
  return emulator.bank_conflicts();
}

TEST(Emulator, CountsBankConflicts) {
  EXPECT_EQ(BankConflicts(16), 0);
  EXPECT_EQ(BankConflicts(144), 0);
  EXPECT_EQ(BankConflicts(0), 0);  // one row
  EXPECT_EQ(BankConflicts(32), 1);
  EXPECT_EQ(BankConflicts(128), 7);
}

TEST(Emulator, FindsCopiesThatNobodyWaitedFor) {
  alignas(16) static const uint32_t words[4] = {};
  auto copy = [](bool commit, bool wait, int then) {
    return [=] {
      if (ThreadIndex() == 0) {
        CopyAsync(Shared(), words);
        if (commit) CopyAsyncCommit();
        if (wait) CopyAsyncWait<0>();
      }
      if (then > 0) SyncThreads();
      if (then > 1) LoadShared(Shared());
      if (then > 1) SyncThreads();
      if (ThreadIndex() == 0) {
        CopyAsyncCommit();
        CopyAsyncWait<0>();
      }
    };
  };
  EXPECT_EQ(Verdict(copy(true, true, 2), words, 16), "");
  EXPECT_NE(Verdict(copy(true, false, 2), words, 16), "");
  EXPECT_NE(Verdict(copy(false, true, 2), words, 16), "");
  EXPECT_EQ(Verdict(copy(true, false, 0), words, 16), "");
  auto leave = [] {
    if (ThreadIndex() == 0) CopyAsync(Shared(), words);
  };
  EXPECT_NE(Verdict(leave, words, 16).find("leaves with copies"),
            std::string::npos);
}

// One multiplication of a warpgroup, with what a test leaves out.
struct WgmmaSteps {
  bool fence_shared = true;
  bool fence = true;
  bool commit = true;
  bool wait = true;
  bool barrier_before_write = true;
  bool write_before_wait = false;
};

constexpr int kWgmmaThreads = 128;
constexpr int kWgmmaBytes = 128 * 128;

// Element (k, n) of b, and where it lies: rows of 128 bytes, the 16-byte chunks
// of row n at their number xor n % 8.
int8_t WgmmaB(int k, int n) {
  return static_cast<int8_t>((k * 37 + n * 101 + k * n) % 255 - 127);
}
int WgmmaOffset(int k, int n) {
  return n * 128 + ((k / 16) ^ (n % 8)) * 16 + k % 16;
}

absl::Status RunWgmma(const WgmmaSteps& steps, const uint32_t (*a)[4],
                      int32_t (*c)[16][4]) {
  Emulator emulator;
  LaunchShape shape;
  shape.threads = kWgmmaThreads;
  shape.shared_bytes = kWgmmaBytes;
  auto body = [&] {
    const int thread = ThreadIndex();
    auto* b = reinterpret_cast<int8_t*>(SharedMemory());
    for (int k = 0; k < 128; ++k) {
      StoreShared(&b[WgmmaOffset(k, thread)], WgmmaB(k, thread));
    }
    if (steps.fence_shared) FenceSharedForWgmma();
    SyncThreads();
    for (auto& sums : c[thread]) {
      for (int32_t& sum : sums) sum = thread;
    }
    if (steps.fence) WgmmaFence();
    WgmmaU8S8(c[thread], a[thread], SharedMemory() + 64);
    if (steps.commit) WgmmaCommit();
    if (steps.write_before_wait) {
      SyncThreads();
      StoreShared(&b[WgmmaOffset(70, thread)], int8_t{1});
    }
    if (steps.wait) WgmmaWait<0>(c[thread]);
    if (steps.barrier_before_write) SyncThreads();
    StoreShared(&b[WgmmaOffset(70, thread)], int8_t{1});
  };
  return emulator.Run<AnyKernel>(shape, {body});
}

// PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk32": A as that of
// mma.m16n8k32 in each of four warps; D "row = (warpid % 4) * 16 + laneid / 4"
// (+ 8), "col = 8 * (i / 4) + (laneid % 4) * 2 + (i & 0x1)".
TEST(Wgmma, MultipliesAsItsFragmentsSay) {
  std::mt19937 rng(12);
  static uint32_t a[kWgmmaThreads][4];
  static int32_t c[kWgmmaThreads][16][4];
  for (auto& words : a) {
    for (uint32_t& word : words) word = rng();
  }
  const absl::Status status = RunWgmma(WgmmaSteps(), a, c);
  ASSERT_TRUE(status.ok()) << status;
  for (int warp = 0; warp < 4; ++warp) {
    int rows[16][32];
    FillA8([&](int lane) { return a[warp * 32 + lane]; }, false, rows);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 64; ++i) {
        const int row = GroupId(lane) + (i % 4 < 2 ? 0 : 8);
        const int column = 8 * (i / 4) + ThreadInGroup(lane) * 2 + (i & 1);
        int32_t sum = warp * 32 + lane;
        // 64 bytes beyond the beginning: depths 64 to 95.
        for (int k = 0; k < 32; ++k) {
          sum += rows[row][k] * WgmmaB(64 + k, column);
        }
        EXPECT_EQ(c[warp * 32 + lane][i / 4][i % 4], sum);
      }
    }
  }
}

TEST(Wgmma, FindsWhatIsLeftOut) {
  static uint32_t a[kWgmmaThreads][4];
  static int32_t c[kWgmmaThreads][16][4];
  auto verdict = [](const WgmmaSteps& steps) {
    return std::string(RunWgmma(steps, a, c).message());
  };
  WgmmaSteps steps;
  steps.fence_shared = false;
  EXPECT_NE(verdict(steps).find("without a fence"), std::string::npos);
  steps = WgmmaSteps();
  steps.fence = false;
  EXPECT_NE(verdict(steps).find("WgmmaFence"), std::string::npos);
  steps = WgmmaSteps();
  steps.commit = false;
  EXPECT_NE(verdict(steps).find("products under way"), std::string::npos);
  steps = WgmmaSteps();
  steps.wait = false;
  EXPECT_NE(verdict(steps).find("products under way"), std::string::npos);
  steps = WgmmaSteps();
  steps.barrier_before_write = false;
  EXPECT_NE(verdict(steps).find("without a barrier"), std::string::npos);
  steps = WgmmaSteps();
  steps.write_before_wait = true;
  EXPECT_NE(verdict(steps), "");
}

TEST(Emulator, RefusesImpossibleShapes) {
  Emulator emulator;
  AnyKernel::Args args = {[] {}};
  LaunchShape shape;
  shape.threads = 33;
  EXPECT_EQ(emulator.Run<AnyKernel>(shape, args).code(),
            absl::StatusCode::kInvalidArgument);
  shape.threads = 2048;
  EXPECT_EQ(emulator.Run<AnyKernel>(shape, args).code(),
            absl::StatusCode::kInvalidArgument);
  shape.threads = 64;
  shape.shared_bytes = 228 * 1024;
  EXPECT_EQ(emulator.Run<AnyKernel>(shape, args).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Emulator, SeedsChangeTheOrderOfBlocks) {
  std::vector<std::vector<int>> orders;
  for (uint32_t seed : {1, 2, 1}) {
    std::vector<int> order;
    LaunchShape shape;
    shape.grid_x = 20;
    Emulator emulator(seed);
    ASSERT_TRUE(emulator
                    .Run<AnyKernel>(shape, {[&order] {
                                      if (ThreadIndex() == 0) {
                                        order.push_back(BlockX());
                                      }
                                    }})
                    .ok());
    EXPECT_EQ(order.size(), 20u);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_EQ(orders[0], orders[2]);
}

}  // namespace
}  // namespace tern::simt
