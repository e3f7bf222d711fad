#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/test_device.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/rope_table.h"

namespace tern::cuda {
namespace {

using ::tern::testing::AddExtremes;
using ::tern::testing::RandomFloats;
using ::tern::testing::SameArray;

constexpr int kPositions = 100;
constexpr uint16_t kUntouched = 0x1234;

struct Case {
  int n_heads;
  int n_kv_heads;
  int head_dim;
  RopePairing pairing;
  int n_tokens;
};

// Tokens at random positions whose queries, keys and values are the columns of
// one matrix.
void Check(const Case& c, bool with_extremes, TestDevice* device) {
  SCOPED_TRACE(::testing::Message()
               << c.n_heads << " heads on " << c.n_kv_heads << " of "
               << c.head_dim << ", extremes " << with_extremes);
  std::mt19937 rng(c.head_dim);
  const int q_size = c.n_heads * c.head_dim;
  const int kv_size = c.n_kv_heads * c.head_dim;
  const int stride = q_size + 2 * kv_size;
  std::vector<float> qkv = RandomFloats(c.n_tokens * stride, &rng);
  if (with_extremes) AddExtremes(/*with_nan=*/true, &rng, &qkv);
  const RopeTable table(c.head_dim, 10000, kPositions);
  const int n_slots = (c.n_tokens + 5) * kKvBlockSize;
  std::vector<int32_t> slots(n_slots);
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), rng);
  std::vector<TokenPlace> places;
  for (int t = 0; t < c.n_tokens; ++t) {
    places.push_back({static_cast<int32_t>(rng() % kPositions), slots[t]});
  }
  const size_t block_elements = KvBlockElements(c.n_kv_heads, c.head_dim);
  std::vector<uint16_t> k_pool(n_slots / kKvBlockSize * block_elements,
                               kUntouched);
  std::vector<uint16_t> v_pool = k_pool;

  RopeArgs args;
  float* const device_qkv = device->InOut(qkv);
  args.q = device_qkv;
  args.k = device_qkv + q_size;
  args.v = device_qkv + q_size + kv_size;
  args.q_stride = args.kv_stride = stride;
  args.places = device->Input(places);
  const size_t angles = size_t{kPositions} * c.head_dim / 2;
  args.cos =
      device->Input(std::vector<float>(table.cos(0), table.cos(0) + angles));
  args.sin =
      device->Input(std::vector<float>(table.sin(0), table.sin(0) + angles));
  args.k_pool = device->InOut(k_pool);
  args.v_pool = device->InOut(v_pool);
  args.n_heads = c.n_heads;
  args.n_kv_heads = c.n_kv_heads;
  args.head_dim = c.head_dim;
  args.is_neox = c.pairing == RopePairing::kNeox;
  const absl::Status status = device->RotateAndStore(args, c.n_tokens);
  ASSERT_TRUE(status.ok()) << status.ToString();

  const Kernels& ref = KernelsFor(Isa::kRef);
  for (int t = 0; t < c.n_tokens; ++t) {
    float* const row = &qkv[t * stride];
    const float* const cos = table.cos(places[t].position);
    const float* const sin = table.sin(places[t].position);
    for (int head = 0; head < c.n_heads; ++head) {
      ref.rope_rotate(row + head * c.head_dim, cos, sin, c.head_dim, c.pairing);
    }
    std::vector<float> k(row + q_size, row + q_size + kv_size);
    for (int head = 0; head < c.n_kv_heads; ++head) {
      ref.rope_rotate(&k[head * c.head_dim], cos, sin, c.head_dim, c.pairing);
    }
    const size_t at = places[t].slot / kKvBlockSize * block_elements;
    ref.store_kv({&k_pool[at], &v_pool[at], c.n_kv_heads, c.head_dim},
                 places[t].slot % kKvBlockSize, k.data(),
                 row + q_size + kv_size);
  }
  EXPECT_TRUE(SameArray(qkv.data(), device_qkv, qkv.size()));
  EXPECT_TRUE(SameArray(k_pool.data(), args.k_pool, k_pool.size()));
  EXPECT_TRUE(SameArray(v_pool.data(), args.v_pool, v_pool.size()));
}

TEST(Rope, EqualsTheCpu) {
  std::string reason;
  const std::unique_ptr<TestDevice> device = TestDevice::Create(&reason);
  if (device == nullptr) GTEST_SKIP() << reason;
  for (const RopePairing pairing : {RopePairing::kNeox, RopePairing::kNorm}) {
    for (const bool with_extremes : {false, true}) {
      Check({4, 2, 64, pairing, 5}, with_extremes, device.get());
      Check({20, 5, 128, pairing, 2}, with_extremes, device.get());
      Check({3, 3, 100, pairing, 1}, with_extremes, device.get());
      Check({1, 1, 2, pairing, 40}, with_extremes, device.get());
    }
  }
}

}  // namespace
}  // namespace tern::cuda
