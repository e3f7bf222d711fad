#include "kernels/ternary_layout.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "util/logging.h"

namespace tern {
namespace {

constexpr int kHalfBlockBytes = kBlockBytes / 2;
constexpr int kHalfPanelRows = kPanelRows / 2;

// Where the code of (row of the panel, column) lies within a 2-bit panel.
struct CodePlace {
  size_t byte;
  int shift;
};

CodePlace PlaceOf(int panel_row, int column) {
  const int field = column % kBlockColumns / 4;
  return {
      static_cast<size_t>(column / kBlockColumns) * kBlockBytes +
          static_cast<size_t>(panel_row / kHalfPanelRows) * kHalfBlockBytes +
          static_cast<size_t>(panel_row % kHalfPanelRows) * 4 + column % 4,
      2 * field};
}

void Pack2Bit(const uint8_t* codes, int n_rows, int n_in, uint8_t* panel) {
  // 0x55 is code 1 in all four fields, which the rows that exist replace.
  std::memset(panel, 0x55, PanelBytes(n_in));
  for (int row = 0; row < n_rows; ++row) {
    const uint8_t* row_codes = codes + static_cast<size_t>(row) * n_in;
    for (int column = 0; column < n_in; column += kBlockColumns) {
      uint8_t* quad = panel + PlaceOf(row, column).byte;
      for (int j = 0; j < 4; ++j) {
        const uint8_t* c = row_codes + column + j;
        quad[j] = c[0] | c[4] << 2 | c[8] << 4 | c[12] << 6;
      }
    }
  }
}

int WeightAt2Bit(const uint8_t* panel, int panel_row, int column) {
  const CodePlace place = PlaceOf(panel_row, column);
  return (panel[place.byte] >> place.shift & 3) - 1;
}

// The bits of a block of base 3: word `line` of string i.
constexpr int kLines = 5;
constexpr int kStrings = 8;
constexpr int kRunBits = 40;
constexpr int kCodeBits = 5;

// The codes of one row of a block of base 3. Four neighbours, for four columns
// of a quad each, are 20 bits in a row of one string.
void PackBase3Row(const uint8_t* codes, int panel_row,
                  uint64_t words[kLines][kStrings]) {
  const int half_row = panel_row % kHalfPanelRows;
  for (int twelve = 0; twelve < 4; ++twelve) {
    uint64_t quad = 0;
    for (int j = 0; j < 4; ++j) {
      const uint8_t* c = codes + 12 * twelve + j;
      quad |= static_cast<uint64_t>(c[0] + 3 * c[4] + 9 * c[8])
              << (kCodeBits * j);
    }
    const int run = 2 * twelve + panel_row / kHalfPanelRows;
    const int bit = kRunBits * run + 4 * kCodeBits * (half_row % 2);
    const int i = half_row / 2;
    words[bit / 64][i] |= quad << (bit % 64);
    if (bit % 64 > 64 - 4 * kCodeBits) {
      words[bit / 64 + 1][i] |= quad >> (64 - bit % 64);
    }
  }
}

void StoreLittleEndian(uint64_t word, uint8_t* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>(word >> (8 * i));
}

int WeightAtBase3(const uint8_t* block, int panel_row, int column) {
  const int run = 2 * (column / 12) + panel_row / kHalfPanelRows;
  const int place = 4 * (panel_row % kHalfPanelRows) + column % 4;
  const int first = kRunBits * run + kCodeBits * (place % 8);
  int code = 0;
  for (int k = 0; k < kCodeBits; ++k) {
    const int bit = first + k;
    const uint8_t byte =
        block[64 * (bit / 64) + 8 * (place / 8) + bit % 64 / 8];
    code |= (byte >> (bit % 8) & 1) << k;
  }
  constexpr int kPowers[] = {1, 3, 9};
  return code / kPowers[column % 12 / 4] % 3 - 1;
}

constexpr int kTl2HalfBytes = kGroupBlockBytes / 2;
constexpr int kTl2HalfColumns = kGroupBlockColumns / 2;

// The bytes of one row of a block of TL2.
void PackTl2Row(const uint8_t* codes, int panel_row, uint8_t* block) {
  for (int half = 0; half < 2; ++half) {
    uint8_t* const bytes = block + half * kTl2HalfBytes + panel_row;
    unsigned int signs = 0;  // group 0 in bit 7
    for (int run = 0; run < 4; ++run) {
      unsigned int indices = 0;
      for (int i = 0; i < 2; ++i) {
        const uint8_t* c = codes + half * kTl2HalfColumns + 6 * run + 3 * i;
        const int v = c[0] + 3 * c[1] + 9 * c[2] - 13;
        signs = signs << 1 | (v < 0);
        indices |= static_cast<unsigned int>(std::abs(v)) << (4 * i);
      }
      bytes[32 * (1 + run)] = static_cast<uint8_t>(indices);
    }
    bytes[0] = static_cast<uint8_t>(signs);
  }
}

int WeightAtTl2(const uint8_t* block, int panel_row, int column) {
  const uint8_t* const bytes =
      block + column / kTl2HalfColumns * kTl2HalfBytes + panel_row;
  const int group = column % kTl2HalfColumns / 3;
  const bool negative = bytes[0] >> (7 - group) & 1;
  const int index = bytes[32 * (1 + group / 2)] >> (4 * (group % 2)) & 15;
  constexpr int kPowers[] = {1, 3, 9};
  const int v = negative ? -index : index;
  return (v + 13) / kPowers[column % 3] % 3 - 1;
}

void PackTl1(const uint8_t* codes, int n_rows, int n_in, uint8_t* panel) {
  // 0x44 is code 1 four times, 1 + 3 * 1 twice, which the rows that exist
  // replace.
  std::memset(panel, 0x44, PanelBytes(n_in, TernaryPacking::kTl1));
  for (int row = 0; row < n_rows; ++row) {
    const uint8_t* c = codes + static_cast<size_t>(row) * n_in;
    for (int run = 0; run < n_in / 4; ++run, c += 4) {
      panel[static_cast<size_t>(run) * kPanelRows + row] =
          (c[0] + 3 * c[1]) | (c[2] + 3 * c[3]) << 4;
    }
  }
}

int WeightAtTl1(const uint8_t* panel, int panel_row, int column) {
  const uint8_t byte =
      panel[static_cast<size_t>(column) / 4 * kPanelRows + panel_row];
  const int index = column % 4 < 2 ? byte & 15 : byte >> 4;
  return (column % 2 == 0 ? index % 3 : index / 3) - 1;
}

// Base 3 and TL2, a block at a time.
void PackGroups(const uint8_t* codes, int n_rows, int n_in,
                TernaryPacking packing, uint8_t* panel) {
  for (int column = 0; column < n_in; column += kGroupBlockColumns) {
    const int n_columns = std::min(kGroupBlockColumns, n_in - column);
    uint64_t words[kLines][kStrings] = {};
    for (int row = 0; row < kPanelRows; ++row) {
      uint8_t row_codes[kGroupBlockColumns];
      std::memset(row_codes, 1, sizeof(row_codes));
      if (row < n_rows) {
        std::memcpy(row_codes, codes + static_cast<size_t>(row) * n_in + column,
                    n_columns);
      }
      if (packing == TernaryPacking::kBase3) {
        PackBase3Row(row_codes, row, words);
      } else {
        PackTl2Row(row_codes, row, panel);
      }
    }
    if (packing == TernaryPacking::kBase3) {
      for (int line = 0; line < kLines; ++line) {
        for (int i = 0; i < kStrings; ++i) {
          StoreLittleEndian(words[line][i], panel + 64 * line + 8 * i);
        }
      }
    }
    panel += kGroupBlockBytes;
  }
}

}  // namespace

absl::string_view TernaryPackingName(TernaryPacking packing) {
  switch (packing) {
    case TernaryPacking::k2Bit:
      return "2bit";
    case TernaryPacking::kBase3:
      return "base3";
    case TernaryPacking::kTl2:
      return "tl2";
    case TernaryPacking::kTl1:
      return "tl1";
  }
  return "unknown";
}

bool ParseTernaryPacking(absl::string_view name, TernaryPacking* packing) {
  for (TernaryPacking candidate : kAllTernaryPackings) {
    if (TernaryPackingName(candidate) == name) {
      *packing = candidate;
      return true;
    }
  }
  return false;
}

void PackTernaryPanel(const uint8_t* codes, int n_rows, int n_in,
                      uint8_t* panel, TernaryPacking packing) {
  DCHECK(n_in % kBlockColumns == 0);
  DCHECK(n_rows >= 1 && n_rows <= kPanelRows);
  if (packing == TernaryPacking::k2Bit) {
    Pack2Bit(codes, n_rows, n_in, panel);
  } else if (packing == TernaryPacking::kTl1) {
    PackTl1(codes, n_rows, n_in, panel);
  } else {
    PackGroups(codes, n_rows, n_in, packing, panel);
  }
}

int TernaryWeightAt(const TernaryView& w, int row, int column) {
  const uint8_t* panel =
      w.packed + row / kPanelRows * PanelBytes(w.n_in, w.packing);
  const int panel_row = row % kPanelRows;
  if (w.packing == TernaryPacking::k2Bit) {
    return WeightAt2Bit(panel, panel_row, column);
  }
  if (w.packing == TernaryPacking::kTl1) {
    return WeightAtTl1(panel, panel_row, column);
  }
  const uint8_t* block = panel + static_cast<size_t>(column) /
                                     kGroupBlockColumns * kGroupBlockBytes;
  const int block_column = column % kGroupBlockColumns;
  return w.packing == TernaryPacking::kBase3
             ? WeightAtBase3(block, panel_row, block_column)
             : WeightAtTl2(block, panel_row, block_column);
}

}  // namespace tern
