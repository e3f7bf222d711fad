#include "model/bpe.h"

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

using Ids = std::vector<int32_t>;

Ids Merged(const BpeMerges& merges, const Ids& ids) {
  BpeMerges::Scratch scratch;
  Ids out;
  merges.Merge(ids, &scratch, &out);
  return out;
}

TEST(BpeMerges, MergesByRankThenFromTheLeft) {
  BpeMerges merges;
  merges.Add(1, 2, 10, 0);
  merges.Add(2, 3, 11, 1);
  merges.Add(10, 3, 12, 2);
  EXPECT_EQ(Merged(merges, {}), Ids());
  EXPECT_EQ(Merged(merges, {1}), Ids({1}));
  EXPECT_EQ(Merged(merges, {1, 2, 3}), Ids({12}));
  EXPECT_EQ(Merged(merges, {2, 3}), Ids({11}));
  EXPECT_EQ(Merged(merges, {3, 2, 1}), Ids({3, 2, 1}));

  BpeMerges same;
  same.Add(1, 1, 10, 0);
  EXPECT_EQ(Merged(same, {1, 1, 1}), Ids({10, 1}));
  EXPECT_EQ(Merged(same, {1, 1, 1, 1}), Ids({10, 10}));
}

TEST(BpeMerges, FirstRankOfAPairCounts) {
  BpeMerges merges;
  EXPECT_TRUE(merges.Add(1, 2, 10, 0));
  EXPECT_TRUE(merges.Add(2, 3, 11, 1));
  EXPECT_FALSE(merges.Add(1, 2, 99, 2));
  EXPECT_EQ(Merged(merges, {1, 2, 3}), Ids({10, 3}));
}

TEST(BpeMerges, AppendsAndReusesScratch) {
  BpeMerges merges;
  merges.Add(1, 2, 10, 0);
  BpeMerges::Scratch scratch;
  Ids out = {7};
  merges.Merge({1, 2, 1, 2}, &scratch, &out);
  merges.Merge({2, 1}, &scratch, &out);
  EXPECT_EQ(out, Ids({7, 10, 10, 2, 1}));
}

// The definition, word by word.
Ids MergedSlowly(const std::map<std::pair<int, int>, std::pair<int, int>>& by,
                 Ids ids) {
  for (;;) {
    int best_rank = -1;
    size_t best = 0;
    int joined = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto it = by.find({ids[i], ids[i + 1]});
      if (it == by.end()) continue;
      if (best_rank < 0 || it->second.first < best_rank) {
        best_rank = it->second.first;
        best = i;
        joined = it->second.second;
      }
    }
    if (best_rank < 0) return ids;
    ids[best] = joined;
    ids.erase(ids.begin() + best + 1);
  }
}

TEST(BpeMerges, EqualsTheDefinitionOnRandomMerges) {
  for (int seed = 0; seed < 300; ++seed) {
    std::mt19937 rng(seed);
    const int n_letters = 1 + rng() % 4;
    const int n_merges = rng() % 40;
    BpeMerges merges;
    std::map<std::pair<int, int>, std::pair<int, int>> by;
    // Tokens are joined from earlier ones, as in a vocabulary; ranks follow an
    // order of their own.
    std::vector<std::pair<std::pair<int, int>, int>> list;
    int n_tokens = n_letters;
    for (int m = 0; m < n_merges; ++m) {
      const std::pair<int, int> pair(rng() % n_tokens, rng() % n_tokens);
      list.push_back({pair, n_tokens++});
    }
    if (seed % 2 == 0) std::shuffle(list.begin(), list.end(), rng);
    for (size_t i = 0; i < list.size(); ++i) {
      // Every third seed has pairs that share a rank.
      const int rank = static_cast<int>(seed % 3 == 0 ? i / 3 : i);
      merges.Add(list[i].first.first, list[i].first.second, list[i].second,
                 rank);
      by.emplace(list[i].first, std::make_pair(rank, list[i].second));
    }
    for (int n : {0, 1, 2, 3, 5, 8, 13, 40, 150}) {
      Ids ids(n);
      for (int32_t& id : ids) id = rng() % n_letters;
      ASSERT_EQ(Merged(merges, ids), MergedSlowly(by, ids))
          << "seed " << seed << ", length " << n;
    }
  }
}

// With time proportional to the square this takes a quarter of an hour.
TEST(BpeMerges, TakesALongRunOfOneLetter) {
  constexpr int kLevels = 6;
  BpeMerges merges;
  for (int level = 0; level < kLevels; ++level) {
    merges.Add(level, level, level + 1, level);
  }
  const Ids out = Merged(merges, Ids(1 << 20, 0));
  EXPECT_EQ(out, Ids((1 << 20) >> kLevels, kLevels));
}

}  // namespace
}  // namespace tern
