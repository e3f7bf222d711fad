#ifndef KERNELS_CUDA_SAMPLE_SELECT_H_
#define KERNELS_CUDA_SAMPLE_SELECT_H_

#include <cstdint>

#include "kernels/cuda/sample_candidates.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// Sums and selections over the candidates of a row, by all threads of a block.
// Everything is added in integers, so that no order matters: the results depend
// on the candidates alone.
class SampleSelect {
 public:
  static constexpr int kDigitBits = 8;
  static constexpr int kBins = 1 << kDigitBits;

  // In shared memory.
  struct alignas(16) Room {
    // 64-bit sums, of which atomic additions carry from low to high.
    int32_t low[kBins];
    int32_t high[kBins];
    uint64_t of_warp[simt::kWarpSize];
    uint64_t before;  // the amounts in the bins before `bin`
    int32_t bin;
  };

  SIMT_DEVICE explicit SampleSelect(Room* shared) : room(shared) {}

  // The sum of the amounts of all candidates that are left.
  template <class Order>
  SIMT_DEVICE uint64_t Total(const Candidates& all) const {
    uint64_t sum = 0;
    for (int i = simt::ThreadIndex(); i < all.n; i += simt::ThreadCount()) {
      uint64_t order, amount;
      if (Order::Get(all, all.At(i), &order, &amount)) sum += amount;
    }
    return SumOfBlock(sum);
  }

  // The first order up to which the amounts sum to `target` at least.
  // REQUIRES: 1 <= target <= Total<Order>(all).
  template <class Order>
  SIMT_DEVICE uint64_t Select(const Candidates& all, uint64_t target) const {
    constexpr int kDigits = (Order::kBits + kDigitBits - 1) / kDigitBits;
    uint64_t prefix = 0;
    for (int digit = kDigits - 1; digit >= 0; --digit) {
      FillBins<Order>(all, digit, digit == kDigits - 1, prefix);
      if (simt::WarpIndex() == 0) FindBin(target);
      simt::SyncThreads();
      target -= simt::LoadShared(&room->before);
      prefix = prefix << kDigitBits |
               static_cast<uint32_t>(simt::LoadShared(&room->bin));
    }
    return prefix;
  }

  SIMT_DEVICE uint64_t SumOfBlock(uint64_t sum) const {
    sum = SumOfWarp(sum);
    simt::SyncThreads();  // who read the sums before has done so
    if (simt::LaneIndex() == 0) {
      simt::StoreShared(&room->of_warp[simt::WarpIndex()], sum);
    }
    simt::SyncThreads();
    uint64_t total = 0;
    for (int w = 0; w < simt::ThreadCount() / simt::kWarpSize; ++w) {
      total += simt::LoadShared(&room->of_warp[w]);
    }
    return total;
  }

  SIMT_DEVICE uint64_t LeastOfBlock(uint64_t value) const {
    SIMT_UNROLL
    for (int mask = 16; mask >= 1; mask /= 2) {
      const uint64_t other = simt::ShuffleXor(value, mask);
      if (other < value) value = other;
    }
    simt::SyncThreads();
    if (simt::LaneIndex() == 0) {
      simt::StoreShared(&room->of_warp[simt::WarpIndex()], value);
    }
    simt::SyncThreads();
    for (int w = 0; w < simt::ThreadCount() / simt::kWarpSize; ++w) {
      const uint64_t other = simt::LoadShared(&room->of_warp[w]);
      if (other < value) value = other;
    }
    return value;
  }

 private:
  SIMT_DEVICE static uint64_t SumOfWarp(uint64_t sum) {
    SIMT_UNROLL
    for (int mask = 16; mask >= 1; mask /= 2) {
      sum += simt::ShuffleXor(sum, mask);
    }
    return sum;
  }

  // The amounts by the digit of the order, of those whose higher digits are
  // `prefix`.
  template <class Order>
  SIMT_DEVICE void FillBins(const Candidates& all, int digit, bool is_first,
                            uint64_t prefix) const {
    simt::SyncThreads();  // the bins before have been read
    for (int i = simt::ThreadIndex(); i < kBins; i += simt::ThreadCount()) {
      simt::StoreShared(&room->low[i], 0);
      simt::StoreShared(&room->high[i], 0);
    }
    simt::SyncThreads();
    const int shift = digit * kDigitBits;
    // Every lane comes as often, since they work together.
    for (int base = 0; base < all.n; base += simt::ThreadCount()) {
      const int i = base + simt::ThreadIndex();
      uint64_t order = 0;
      uint64_t amount = 0;
      bool counts = i < all.n && Order::Get(all, all.At(i), &order, &amount);
      if (!is_first && order >> shift >> kDigitBits != prefix) counts = false;
      const int bin = static_cast<int>(order >> shift & (kBins - 1));
      AddToBin(bin, counts ? amount : 0);
    }
    simt::SyncThreads();
  }

  // Neighbours often go to one bin: they add up before.
  SIMT_DEVICE void AddToBin(int bin, uint64_t amount) const {
    const uint32_t counting = simt::Ballot(amount != 0);
    if (counting == 0) return;
    const int common = simt::Shuffle(bin, 0);
    if (simt::Ballot(amount == 0 || bin == common) == ~0u) {
      amount = SumOfWarp(amount);
      bin = common;
      if (simt::LaneIndex() != 0) return;
    }
    if (amount == 0) return;
    const auto low = static_cast<uint32_t>(amount);
    const auto before = static_cast<uint32_t>(
        simt::AtomicAddShared(&room->low[bin], static_cast<int32_t>(low)));
    const uint32_t carry = before + low < low ? 1 : 0;
    const uint32_t high = static_cast<uint32_t>(amount >> 32) + carry;
    if (high != 0) {
      simt::AtomicAddShared(&room->high[bin], static_cast<int32_t>(high));
    }
  }

  SIMT_DEVICE uint64_t Bin(int i) const {
    return uint64_t{static_cast<uint32_t>(simt::LoadShared(&room->high[i]))}
               << 32 |
           static_cast<uint32_t>(simt::LoadShared(&room->low[i]));
  }

  // Where the sum of the bins reaches `target`; by one warp, each lane of which
  // has some bins in a row.
  SIMT_DEVICE void FindBin(uint64_t target) const {
    constexpr int kBinsOfLane = kBins / simt::kWarpSize;
    const int first = simt::LaneIndex() * kBinsOfLane;
    uint64_t own = 0;
    for (int i = first; i < first + kBinsOfLane; ++i) own += Bin(i);
    uint64_t sum = own;  // of this lane and those before
    SIMT_UNROLL
    for (int delta = 1; delta < simt::kWarpSize; delta *= 2) {
      const uint64_t other = simt::ShuffleUp(sum, delta);
      if (simt::LaneIndex() >= delta) sum += other;
    }
    uint64_t before = sum - own;
    if (before >= target || sum < target) return;
    int i = first;
    while (before + Bin(i) < target) before += Bin(i++);
    simt::StoreShared(&room->before, before);
    simt::StoreShared(&room->bin, i);
  }

  Room* const room;
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_SAMPLE_SELECT_H_
