#ifndef KERNELS_CUDA_SAMPLE_KERNEL_H_
#define KERNELS_CUDA_SAMPLE_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/exact_math.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/sample_candidates.h"
#include "kernels/cuda/sample_select.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// SampleArgs, a block for each row (BlockX). Greedy reads the logits once;
// top-k of up to kThreads twice, and goes on in shared memory; whatever else
// reads them once for each eight bits of an order, which no list is sorted for.
struct SampleKernel {
  static constexpr int kThreads = 512;
  static constexpr int kBlocksPerSm = 1;
  static constexpr int kListMax = 4096;  // candidates in shared memory
  using Args = SampleArgs;

  struct alignas(16) Room {
    SampleSelect::Room select;
    int32_t n_listed;
    Candidate list[kListMax];
  };

  static simt::LaunchShape Shape(int n_rows) {
    simt::LaunchShape shape;
    shape.grid_x = n_rows;
    shape.threads = kThreads;
    shape.shared_bytes = sizeof(Room);
    return shape;
  }

  SIMT_DEVICE static void Run(const Args& a) {
    const SampleRow row = LoadRow(&a.rows[simt::BlockX()]);
    const int token = SampleKernel(a, row).Sample();
    if (simt::ThreadIndex() == 0) {
      simt::Store(a.tokens + simt::BlockX(), token);
    }
  }

 private:
  static constexpr int kAhead = 8;  // logits that a thread loads together

  SIMT_DEVICE static SampleRow LoadRow(const SampleRow* from) {
    SampleRow row;
    row.seed = simt::Load(&from->seed);
    row.sample_index = simt::Load(&from->sample_index);
    row.position = simt::Load(&from->position);
    row.min_weight = simt::Load(&from->min_weight);
    row.temperature = simt::Load(&from->temperature);
    row.top_k = simt::Load(&from->top_k);
    row.top_p = simt::Load(&from->top_p);
    return row;
  }

  SIMT_DEVICE SampleKernel(const Args& args, const SampleRow& how)
      : a(args),
        row(how),
        room(reinterpret_cast<Room*>(simt::SharedMemory())),
        select(&room->select) {}

  SIMT_DEVICE int Sample() {
    Candidates all = {};
    all.n = a.vocab_size;
    all.logits = a.logits + simt::BlockX() * a.logits_stride;
    all.temperature = row.temperature;
    all.last = kNoCandidate;
    all.last_weight = ~uint64_t{0};

    bool is_finite =
        a.is_finite == nullptr || simt::Load(a.is_finite + simt::BlockX()) != 0;
    const Candidate own_best = FindBest(all, &is_finite);
    const Candidate best = select.LeastOfBlock(own_best);
    if (select.SumOfBlock(is_finite ? 0 : 1) != 0) return -1;
    if (row.temperature == 0) return IdOf(best);

    all.z_max = ZOf(best);
    KeepTopK(own_best, &all);
    KeepTopP(&all);
    all.min_weight = row.min_weight;
    const uint64_t total = select.Total<ByWeight>(all);
    const uint64_t drawn = simt::MultiplyHigh(RandomWord(row), total);
    return static_cast<int>(select.Select<ById>(all, drawn + 1));
  }

  // Calls take(candidate) for the thread's part of all logits.
  template <typename Take>
  SIMT_DEVICE void ForEachLogit(const Candidates& all, Take take) const {
    const int step = simt::ThreadCount();
    for (int first = simt::ThreadIndex(); first < all.n;
         first += kAhead * step) {
      float logit[kAhead];
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int id = first + i * step;
        logit[i] = id < all.n ? simt::Load(all.logits + id) : 0.0f;
      }
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int id = first + i * step;
        if (id < all.n) take(logit[i], id);
      }
    }
  }

  // Of the thread's logits.
  SIMT_DEVICE Candidate FindBest(const Candidates& all, bool* is_finite) const {
    Candidate best = kNoCandidate;
    ForEachLogit(all, [&](float logit, int id) {
      if (!IsFinite(logit)) *is_finite = false;
      const Candidate c =
          MakeCandidate(ScaledLogit(logit, all.temperature), id);
      if (c < best) best = c;
    });
    return best;
  }

  SIMT_DEVICE void KeepTopK(Candidate own_best, Candidates* all) const {
    if (row.top_k <= 0 || row.top_k >= a.vocab_size) return;
    if (row.top_k <= simt::ThreadCount()) {
      // The k-th best of the threads' bests has k candidates up to it, and few
      // more: those are listed.
      simt::StoreShared(&room->list[simt::ThreadIndex()], own_best);
      simt::SyncThreads();
      Candidates bests = *all;
      bests.list = room->list;
      bests.n = simt::ThreadCount();
      ListUpTo(select.Select<ByZ>(bests, row.top_k), all);
    }
    all->last = select.Select<ByZ>(*all, row.top_k);
  }

  // Puts the candidates up to `bound` into the list, if it has room for them.
  SIMT_DEVICE void ListUpTo(Candidate bound, Candidates* all) const {
    simt::SyncThreads();  // the bests have been read
    if (simt::ThreadIndex() == 0) simt::StoreShared(&room->n_listed, 0);
    simt::SyncThreads();
    ForEachLogit(*all, [&](float logit, int id) {
      const Candidate c =
          MakeCandidate(ScaledLogit(logit, all->temperature), id);
      if (c > bound) return;
      const int at = simt::AtomicAddShared(&room->n_listed, 1);
      if (at < kListMax) simt::StoreShared(&room->list[at], c);
    });
    simt::SyncThreads();
    const int n_listed = simt::LoadShared(&room->n_listed);
    if (n_listed > kListMax) return;
    all->list = room->list;
    all->n = n_listed;
  }

  SIMT_DEVICE void KeepTopP(Candidates* all) const {
    // Below 2^53, float64 has every integer, and 1 keeps everything.
    constexpr uint64_t kExactDoubleMax = uint64_t{1} << 53;
    const uint64_t total = select.Total<ByWeight>(*all);
    if (row.top_p >= 1 && total <= kExactDoubleMax) return;
    const double product =
        static_cast<double>(row.top_p) * static_cast<double>(total);
    auto target = static_cast<uint64_t>(product);
    if (static_cast<double>(target) < product) ++target;
    // It may have been rounded up beyond the sum of all.
    if (target > total) return;
    all->last_weight = select.Select<ByWeight>(*all, target);
  }

  const Args& a;
  const SampleRow& row;
  Room* const room;
  const SampleSelect select;
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_SAMPLE_KERNEL_H_
