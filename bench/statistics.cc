#include "bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "util/logging.h"

namespace tern {

double Percentile(const std::vector<float>& sorted, double share) {
  CHECK(!sorted.empty() && share > 0 && share <= 1);
  const double n = static_cast<double>(sorted.size());
  // 0.9 * 10 is a little more than 9 in binary, which must not be rank 10.
  const int64_t rank = std::llround(std::ceil(share * n - 1e-9 * n));
  return sorted[std::max<int64_t>(rank, 1) - 1];
}

Summary Summarize(std::vector<float>* numbers) {
  Summary summary;
  if (numbers->empty()) return summary;
  std::sort(numbers->begin(), numbers->end());
  summary.count = static_cast<int64_t>(numbers->size());
  summary.mean = std::accumulate(numbers->begin(), numbers->end(), 0.0) /
                 static_cast<double>(summary.count);
  summary.p50 = Percentile(*numbers, 0.5);
  summary.p90 = Percentile(*numbers, 0.9);
  summary.p99 = Percentile(*numbers, 0.99);
  summary.max = numbers->back();
  return summary;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

}  // namespace tern
