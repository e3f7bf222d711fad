#ifndef BENCH_SVG_PLOT_H_
#define BENCH_SVG_PLOT_H_

#include <string>
#include <utility>
#include <vector>

namespace tern {

// A diagram of lines.
struct Plot {
  struct Line {
    std::string label;
    std::vector<std::pair<double, double>> points;  // ascending x
  };
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;  // then points with x <= 0 are left out
  std::vector<Line> lines;
};

// The diagrams below each other, as an SVG file of its own: no script, no
// reference to anything outside. Numbers that are not finite are left out.
std::string SvgOf(const std::vector<Plot>& plots);

// Points of the cumulative distribution of `sorted` numbers, at most
// `n_points`: (number, share of them that do not exceed it).
std::vector<std::pair<double, double>> CumulativeShares(
    const std::vector<float>& sorted, int n_points = 200);

}  // namespace tern

#endif  // BENCH_SVG_PLOT_H_
