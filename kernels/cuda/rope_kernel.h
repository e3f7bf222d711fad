#ifndef KERNELS_CUDA_ROPE_KERNEL_H_
#define KERNELS_CUDA_ROPE_KERNEL_H_

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/exact_math.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// RopeArgs, a block for each token (BlockX). A thread takes a pair of elements
// at a time, of the query heads, then of the keys, then of the values.
//
// Keys lie [head_dim, slot], so that a token's are two bytes in each of many
// places. What reads them, attention, matters more.
struct RopeKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 4;
  using Args = RopeArgs;

  static simt::LaunchShape Shape(int n_tokens) {
    simt::LaunchShape shape;
    shape.grid_x = n_tokens;
    shape.threads = kThreads;
    return shape;
  }

  SIMT_DEVICE static void Run(const Args& a) {
    const int64_t token = simt::BlockX();
    const TokenPlace place = simt::Load(&a.places[token]);
    const int half = a.head_dim / 2;
    const int n_pairs = (a.n_heads + 2 * a.n_kv_heads) * half;
    const float* const cos = a.cos + int64_t{place.position} * half;
    const float* const sin = a.sin + int64_t{place.position} * half;
    for (int pair = simt::ThreadIndex(); pair < n_pairs;
         pair += simt::ThreadCount()) {
      const int i = pair % half;
      const int first = a.is_neox ? i : 2 * i;
      const int second = a.is_neox ? i + half : 2 * i + 1;
      int head = pair / half;
      if (head < a.n_heads) {
        float* const q = a.q + token * a.q_stride + head * a.head_dim;
        const Pair rotated =
            Rotate({simt::Load(q + first), simt::Load(q + second)},
                   simt::Load(cos + i), simt::Load(sin + i));
        simt::Store(q + first, rotated.a);
        simt::Store(q + second, rotated.b);
        continue;
      }
      head -= a.n_heads;
      const bool is_key = head < a.n_kv_heads;
      if (!is_key) head -= a.n_kv_heads;
      const float* const x = (is_key ? a.k : a.v) + token * a.kv_stride +
                             static_cast<int64_t>(head) * a.head_dim;
      Pair stored = {simt::Load(x + first), simt::Load(x + second)};
      if (is_key) {
        stored = Rotate(stored, simt::Load(cos + i), simt::Load(sin + i));
      }
      StoreElement(a, is_key, place.slot, head, first, stored.a);
      StoreElement(a, is_key, place.slot, head, second, stored.b);
    }
  }

 private:
  struct Pair {
    float a, b;
  };

  SIMT_DEVICE static Pair Rotate(const Pair& x, float cos, float sin) {
    return {simt::Fma(x.a, cos, -(x.b * sin)), simt::Fma(x.b, cos, x.a * sin)};
  }

  // Element d of a key-value head at a slot of the pool.
  SIMT_DEVICE static void StoreElement(const Args& a, bool is_key,
                                       int32_t slot_of_pool, int head, int d,
                                       float x) {
    const int64_t block = slot_of_pool / kKvBlockSize;
    const int slot = slot_of_pool % kKvBlockSize;
    const int64_t head_begin =
        (block * a.n_kv_heads + head) * a.head_dim * kKvBlockSize;
    uint16_t* const to = is_key
                             ? a.k_pool + head_begin + d * kKvBlockSize + slot
                             : a.v_pool + head_begin + slot * a.head_dim + d;
    simt::Store(to, SaturatingHalf(x));
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ROPE_KERNEL_H_
