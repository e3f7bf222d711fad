#include "bench/svg_plot.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// Whether every element is closed in its order and no bare & or < is left: as
// much of XML as SvgOf() writes.
bool IsWellFormed(absl::string_view text) {
  std::vector<std::string> open;
  while (!text.empty()) {
    if (text[0] == '&') {
      bool known = false;
      for (absl::string_view entity : {"&amp;", "&lt;", "&gt;", "&quot;"}) {
        known |= absl::StartsWith(text, entity);
      }
      if (!known) return false;
    }
    if (text[0] != '<') {
      if (text[0] == '>') return false;
      text.remove_prefix(1);
      continue;
    }
    const size_t end = text.find('>');
    if (end == absl::string_view::npos) return false;
    absl::string_view tag = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    if (tag.find('<') != absl::string_view::npos) return false;
    if (tag.empty()) return false;
    if (tag.back() == '/') continue;
    const std::string name(tag.substr(0, tag.find(' ')));
    if (name[0] != '/') {
      open.push_back(name);
    } else if (open.empty() || "/" + open.back() != name) {
      return false;
    } else {
      open.pop_back();
    }
  }
  return open.empty();
}

TEST(SvgPlot, IsWellFormedWhateverItIsGiven) {
  Plot plot;
  plot.title = "a < b & \"c\"";
  plot.log_x = true;
  plot.lines = {{"<x>", {{0, 1}, {1, 2}, {10, NAN}, {100, INFINITY}, {1e3, 4}}},
                {"empty", {}},
                {"one", {{5, 5}}}};
  const std::string svg = SvgOf({plot, Plot()});
  EXPECT_TRUE(IsWellFormed(svg)) << svg;
  EXPECT_TRUE(absl::StartsWith(svg, "<svg xmlns=")) << svg;
  EXPECT_TRUE(absl::StrContains(svg, "a &lt; b &amp; &quot;c&quot;"));
  EXPECT_FALSE(absl::StrContains(svg, "nan"));
  EXPECT_FALSE(absl::StrContains(svg, "inf"));
}

TEST(SvgPlot, PutsPointsWhereTheyBelong) {
  Plot plot;
  plot.log_x = true;
  plot.lines = {{"line", {{1, 0}, {10, 1}, {100, 2}}}};
  // The frame is 70..700 by 270..40: two decades wide, two units high.
  EXPECT_TRUE(absl::StrContains(
      SvgOf({plot}), "points=\"70.0,270.0 385.0,155.0 700.0,40.0 \""));
}

TEST(CumulativeShares, EndsWithAllOfThem) {
  using Points = std::vector<std::pair<double, double>>;
  EXPECT_EQ(CumulativeShares({1, 2, 3, 4}, 200),
            (Points{{1, 0.25}, {2, 0.5}, {3, 0.75}, {4, 1}}));
  EXPECT_EQ(CumulativeShares({1, 2, 3, 4}, 2), (Points{{2, 0.5}, {4, 1}}));
  EXPECT_EQ(CumulativeShares({}, 2), Points());
}

}  // namespace
}  // namespace tern
