#include "cli/text_table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace tern {
namespace {

// Of the kind that people compare by their last digit; addresses are not.
bool IsNumber(absl::string_view cell) {
  return absl::ascii_isdigit(cell[0]) && !absl::StrContains(cell, ':');
}

}  // namespace

std::string TextTable(const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  const size_t n_columns = rows[0].size();
  std::vector<size_t> widths(n_columns, 0);
  std::vector<bool> has_number(n_columns, false);
  std::vector<bool> has_word(n_columns, false);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < n_columns; ++c) {
      const std::string& cell = rows[r][c];
      widths[c] = std::max(widths[c], cell.size());
      // A dash says nothing about its column.
      if (r == 0 || cell.empty() || cell == "-") continue;
      (IsNumber(cell) ? has_number : has_word)[c] = true;
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < n_columns; ++c) {
      const std::string padding(widths[c] - row[c].size(), ' ');
      const bool to_right = has_number[c] && !has_word[c];
      if (c > 0) line += "  ";
      absl::StrAppend(&line, to_right ? padding : "", row[c],
                      to_right ? "" : padding);
    }
    absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return text;
}

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return value < 9.95 ? absl::StrFormat("%.1f %s", value, unit)
                      : absl::StrFormat("%.0f %s", value, unit);
}

}  // namespace tern
