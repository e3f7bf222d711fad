#ifndef KERNELS_CUDA_NORMALISE_KERNEL_H_
#define KERNELS_CUDA_NORMALISE_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/exact_math.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// NormaliseArgs, a block for each token (BlockX). The token is kept in shared
// memory. Its squares are added by one warp, lane i of 16 taking every 16th, as
// section 2 asks: a chain of n / 16 additions, some 0.35 us for 2,560 columns,
// which docs/exactness_gpu.md weighs against bits that differ from a CPU's.
struct NormaliseKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 4;
  static constexpr int kWarps = kThreads / simt::kWarpSize;
  using Args = NormaliseArgs;

  // What one warp tells the others of its elements.
  struct alignas(16) WarpResult {
    float absmax;
    int32_t sum;
    int32_t all_finite;
    float inverse_rms;  // of the token, by warp 0
  };

  static int SharedBytes(int n) {
    return kWarps * static_cast<int>(sizeof(WarpResult)) +
           n * static_cast<int>(sizeof(float));
  }

  struct alignas(16) Floats4 {
    float v[4];
  };

  SIMT_DEVICE static void Run(const Args& a) {
    auto* const results = reinterpret_cast<WarpResult*>(simt::SharedMemory());
    auto* const h = reinterpret_cast<float*>(results + kWarps);
    const int64_t token = simt::BlockX();

    ReadToken(a, token, h);
    simt::SyncThreads();
    if (a.weight != nullptr) {
      if (simt::WarpIndex() == 0) FindInverseRms(a, h, &results[0].inverse_rms);
      simt::SyncThreads();
    }
    Normalise(a, h, results);
    simt::SyncThreads();
    Quantise(a, token, h, results);
  }

 private:
  // Each thread makes, and later reads, the same four elements in a row.
  SIMT_DEVICE static int FirstElement() { return 4 * simt::ThreadIndex(); }
  SIMT_DEVICE static int Step() { return 4 * simt::ThreadCount(); }

  SIMT_DEVICE static Floats4 Load4(const float* global) {
    return simt::Load(reinterpret_cast<const Floats4*>(global));
  }

  SIMT_DEVICE static void ReadToken(const Args& a, int64_t token, float* h) {
    const int64_t row = a.rows == nullptr ? token : simt::Load(a.rows + token);
    float* const x = a.x + row * a.x_stride;
    const float* const y = a.y + row * a.y_stride;
    for (int i = FirstElement(); i < a.n; i += Step()) {
      Floats4 e = Load4(x + i);
      if (a.input != NormaliseInput::kPlain) {
        const Floats4 other = Load4(y + i);
        SIMT_UNROLL
        for (int j = 0; j < 4; ++j) e.v[j] = Combine(a, e.v[j], other.v[j]);
      }
      if (a.input == NormaliseInput::kResidual) {
        simt::Store(reinterpret_cast<Floats4*>(x + i), e);
      }
      simt::StoreShared(reinterpret_cast<Floats4*>(h + i), e);
    }
  }

  SIMT_DEVICE static float Combine(const Args& a, float x, float y) {
    if (a.input == NormaliseInput::kResidual) return x + y;
    if (a.input == NormaliseInput::kRelu2Gate) return Relu2Gate(x, y);
    return SiluGate(x, y);
  }

  // By one warp, whose upper half does what the lower one does.
  SIMT_DEVICE static void FindInverseRms(const Args& a, const float* h,
                                         float* inverse_rms) {
    constexpr int kAhead = 16;  // loads under way, so that only the sum waits
    const int lane = simt::LaneIndex() % 16;
    float sum = 0.0f;
    int i = lane;
    for (; i + 16 * (kAhead - 1) < a.n; i += 16 * kAhead) {
      float v[kAhead];
      SIMT_UNROLL
      for (int j = 0; j < kAhead; ++j) v[j] = simt::LoadShared(h + i + 16 * j);
      SIMT_UNROLL
      for (int j = 0; j < kAhead; ++j) sum = simt::Fma(v[j], v[j], sum);
    }
    for (; i < a.n; i += 16) {
      const float v = simt::LoadShared(h + i);
      sum = simt::Fma(v, v, sum);
    }
    const float mean = simt::Divide(TreeSum16(sum), static_cast<float>(a.n));
    const float r = simt::Divide(1.0f, simt::Sqrt(mean + a.eps));
    if (simt::LaneIndex() == 0) simt::StoreShared(inverse_rms, r);
  }

  SIMT_DEVICE static void Normalise(const Args& a, float* h,
                                    WarpResult* results) {
    const float r =
        a.weight == nullptr ? 1.0f : simt::LoadShared(&results[0].inverse_rms);
    float absmax = 0.0f;
    bool all_finite = true;
    for (int i = FirstElement(); i < a.n; i += Step()) {
      auto* const at = reinterpret_cast<Floats4*>(h + i);
      Floats4 e = simt::LoadShared(at);
      if (a.weight != nullptr) {
        const Floats4 weight = Load4(a.weight + i);
        SIMT_UNROLL
        for (int j = 0; j < 4; ++j) e.v[j] = (e.v[j] * r) * weight.v[j];
        simt::StoreShared(at, e);
      }
      SIMT_UNROLL
      for (int j = 0; j < 4; ++j) {
        absmax = MaxOf(Magnitude(e.v[j]), absmax);
        all_finite = all_finite && IsFinite(e.v[j]);
      }
    }
    SIMT_UNROLL
    for (int mask = 16; mask >= 1; mask /= 2) {
      absmax = MaxOf(simt::ShuffleXor(absmax, mask), absmax);
    }
    const bool warp_finite = simt::Ballot(!all_finite) == 0;
    if (simt::LaneIndex() == 0) {
      WarpResult& result = results[simt::WarpIndex()];
      simt::StoreShared(&result.absmax, absmax);
      simt::StoreShared(&result.all_finite, int32_t{warp_finite});
    }
  }

  SIMT_DEVICE static void Quantise(const Args& a, int64_t token, const float* h,
                                   WarpResult* results) {
    const int warps = simt::ThreadCount() / simt::kWarpSize;
    float absmax = 0.0f;
    int32_t all_finite = 1;
    for (int w = 0; w < warps; ++w) {
      absmax = MaxOf(simt::LoadShared(&results[w].absmax), absmax);
      all_finite &= simt::LoadShared(&results[w].all_finite);
    }
    const float s = simt::Divide(127.0f, MaxOf(absmax, 1e-5f));
    int8_t* const q = a.q + token * a.n;
    int32_t sum = 0;
    for (int i = FirstElement(); i < a.n; i += Step()) {
      const Floats4 e =
          simt::LoadShared(reinterpret_cast<const Floats4*>(h + i));
      uint32_t packed = 0;
      SIMT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int32_t value = RoundToInt8(e.v[j] * s);
        sum += value;
        packed |= (static_cast<uint32_t>(value) & 0xffu) << (8 * j);
      }
      simt::Store(reinterpret_cast<uint32_t*>(q + i), packed);
    }
    SIMT_UNROLL
    for (int mask = 16; mask >= 1; mask /= 2) {
      sum += simt::ShuffleXor(sum, mask);
    }
    if (simt::LaneIndex() == 0) {
      simt::StoreShared(&results[simt::WarpIndex()].sum, sum);
    }
    simt::SyncThreads();
    if (simt::ThreadIndex() != 0) return;
    int32_t total = 0;
    for (int w = 0; w < warps; ++w) total += simt::LoadShared(&results[w].sum);
    simt::Store(a.s + token, s);
    simt::Store(a.sum + token, total);
    if (a.is_finite != nullptr) simt::Store(a.is_finite + token, all_finite);
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_NORMALISE_KERNEL_H_
