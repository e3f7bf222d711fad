#include "bench/svg_plot.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace tern {
namespace {

constexpr double kWidth = 720;
constexpr double kPlotHeight = 320;
constexpr double kLeft = 70;
constexpr double kRight = 20;
constexpr double kTop = 40;
constexpr double kBottom = 50;
constexpr int kTicks = 5;

// Told apart without colour vision, too (Okabe and Ito).
constexpr absl::string_view kColours[] = {"#0072b2", "#d55e00", "#009e73",
                                          "#cc79a7", "#e69f00", "#56b4e9"};

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Text(double x, double y, absl::string_view anchor,
                 absl::string_view text) {
  return absl::StrFormat(
      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y,
      anchor, Escaped(text));
}

std::string Stroke(double x1, double y1, double x2, double y2,
                   absl::string_view colour) {
  return absl::StrFormat(
      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
      "stroke=\"%s\"/>\n",
      x1, y1, x2, y2, colour);
}

// The round step (1, 2 or 5 times a power of ten) that cuts `span` into at
// most kTicks parts.
double TickStep(double span) {
  const double power = std::pow(10, std::floor(std::log10(span / kTicks)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (span / (factor * power) <= kTicks) return factor * power;
  }
  return 10 * power;
}

// One axis: numbers to places.
class Axis {
 public:
  Axis(bool is_log, double from, double to)
      : is_log_(is_log), from_(from), to_(to) {}

  bool Has(double value) const {
    return std::isfinite(value) && (!is_log_ || value > 0);
  }

  void Include(double value) {
    if (!Has(value)) return;
    min_ = std::min(min_, Scaled(value));
    max_ = std::max(max_, Scaled(value));
  }

  // Makes room where there is none.
  void Settle() {
    if (min_ > max_) min_ = max_ = 0;
    if (is_log_) {
      min_ = std::floor(min_);
      max_ = std::max(std::ceil(max_), min_ + 1);
    } else {
      min_ = std::min(min_, 0.0);
      const double step = TickStep(std::max(max_ - min_, 1e-9));
      max_ = std::max(std::ceil(max_ / step) * step, min_ + step);
    }
  }

  double At(double value) const {
    return from_ + (Scaled(value) - min_) / (max_ - min_) * (to_ - from_);
  }

  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    const double step = is_log_
                            ? std::max(1.0, std::ceil((max_ - min_) / kTicks))
                            : TickStep(max_ - min_);
    for (int i = 0; min_ + i * step <= max_ + step / 1000; ++i) {
      const double tick = min_ + i * step;
      ticks.push_back(is_log_ ? std::pow(10, tick) : tick);
    }
    return ticks;
  }

 private:
  double Scaled(double value) const {
    return is_log_ ? std::log10(value) : value;
  }

  const bool is_log_;
  const double from_;
  const double to_;
  double min_ = std::numeric_limits<double>::infinity();
  double max_ = -std::numeric_limits<double>::infinity();
};

std::string Draw(const Plot& plot, double top) {
  Axis x(plot.log_x, kLeft, kWidth - kRight);
  Axis y(false, top + kPlotHeight - kBottom, top + kTop);
  for (const Plot::Line& line : plot.lines) {
    for (const auto& [px, py] : line.points) {
      if (!x.Has(px) || !y.Has(py)) continue;
      x.Include(px);
      y.Include(py);
    }
  }
  x.Settle();
  y.Settle();
  const double bottom = top + kPlotHeight - kBottom;
  std::string svg = Text(kWidth / 2, top + 18, "middle", plot.title);
  for (const double tick : x.Ticks()) {
    svg += Stroke(x.At(tick), top + kTop, x.At(tick), bottom, "#dddddd");
    svg += Text(x.At(tick), bottom + 16, "middle", absl::StrCat(tick));
  }
  for (const double tick : y.Ticks()) {
    svg += Stroke(kLeft, y.At(tick), kWidth - kRight, y.At(tick), "#dddddd");
    svg += Text(kLeft - 6, y.At(tick) + 4, "end", absl::StrCat(tick));
  }
  svg +=
      Text((kLeft + kWidth - kRight) / 2, bottom + 36, "middle", plot.x_label);
  svg += Text(6, top + kTop - 8, "start", plot.y_label);
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    const Plot::Line& line = plot.lines[i];
    const absl::string_view colour = kColours[i % std::size(kColours)];
    std::string points;
    for (const auto& [px, py] : line.points) {
      if (!x.Has(px) || !y.Has(py)) continue;
      absl::StrAppendFormat(&points, "%.1f,%.1f ", x.At(px), y.At(py));
    }
    absl::StrAppendFormat(&svg,
                          "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" "
                          "stroke-width=\"1.5\"/>\n",
                          points, colour);
    const double at = top + kTop + 14 + 16 * static_cast<double>(i);
    svg += Stroke(kLeft + 10, at - 4, kLeft + 30, at - 4, colour);
    svg += Text(kLeft + 36, at, "start", line.label);
  }
  return svg;
}

}  // namespace

std::string SvgOf(const std::vector<Plot>& plots) {
  const double height = kPlotHeight * static_cast<double>(plots.size());
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, height);
  double top = 0;
  for (const Plot& plot : plots) {
    svg += Draw(plot, top);
    top += kPlotHeight;
  }
  return svg + "</svg>\n";
}

std::vector<std::pair<double, double>> CumulativeShares(
    const std::vector<float>& sorted, int n_points) {
  std::vector<std::pair<double, double>> points;
  const int64_t n = static_cast<int64_t>(sorted.size());
  const int64_t n_steps = std::min<int64_t>(n, n_points);
  for (int64_t i = 1; i <= n_steps; ++i) {
    const int64_t rank = n * i / n_steps;
    points.push_back(
        {sorted[rank - 1], static_cast<double>(rank) / static_cast<double>(n)});
  }
  return points;
}

}  // namespace tern
