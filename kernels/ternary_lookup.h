#ifndef KERNELS_TERNARY_LOOKUP_H_
#define KERNELS_TERNARY_LOOKUP_H_

#include <cstddef>
#include <cstdint>

#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// What the ternary products that look up sums share: everything around the
// tables and the innermost loops. Instantiated for types with internal linkage
// only, see kernels/avx2.h.
namespace tern {

// Panels that meet the tables of a chunk, made anew for each token and each so
// many panels. With several tokens these panels stay in the second cache.
inline constexpr int kPanelsOneToken = 64;
inline constexpr int kPanelsManyTokens = 16;

// All tokens against rows [row_begin, row_end), see Kernels::ternary_matmul_of.
// Tokens are taken one after another.
//
// Method: a packing in an instruction set.
//   kColumns, kBytes   of a block
//   kTableBytes        of the tables for the columns of a block
//   kBlocksPerChunk    whose tables lie in the first cache beside the weights
//   MakeTables(q, n_blocks, tables)
//                      makes the tables of so many blocks of activations
//   AddBlocks(blocks, n_blocks, tables, sums)
//                      adds blocks of a panel to the sums of its 32 rows
//   StoreRows(sums, s, scale, n_rows, y)
//                      y = (float)sum / s * scale
// Tables and sums are aligned to 32 bytes.
template <typename Method>
void MatmulByLookup(const TernaryView& w, const QuantizedTokens& x,
                    int row_begin, int row_end, float* y, size_t y_stride) {
  constexpr int kColumns = Method::kColumns;
  const int n_blocks = (w.n_in + kColumns - 1) / kColumns;
  const int n_whole = w.n_in / kColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * Method::kBytes;
  const int n_chunks =
      (n_blocks + Method::kBlocksPerChunk - 1) / Method::kBlocksPerChunk;
  const int pass_rows =
      kPanelRows * (x.n_tokens == 1 ? kPanelsOneToken : kPanelsManyTokens);
  alignas(32) uint8_t tables[Method::kBlocksPerChunk * Method::kTableBytes];
  alignas(32) int32_t sums[kPanelsOneToken * kPanelRows];
  for (int first = row_begin; first < row_end; first += pass_rows) {
    const int last = row_end - first < pass_rows ? row_end : first + pass_rows;
    for (int t = 0; t < x.n_tokens; ++t) {
      const int8_t* const q = x.q + static_cast<size_t>(t) * x.n;
      __builtin_memset(sums, 0, sizeof(sums));
      for (int chunk = 0; chunk < n_chunks; ++chunk) {
        // Chunks of nearly equal size.
        const int begin = n_blocks * chunk / n_chunks;
        const int end = n_blocks * (chunk + 1) / n_chunks;
        const int whole_end = end < n_whole ? end : n_whole;
        Method::MakeTables(q + begin * kColumns, whole_end - begin, tables);
        if (end > n_whole) {
          // Columns that the last block lacks have no activations.
          int8_t tail[kColumns] = {};
          __builtin_memcpy(tail, q + n_whole * kColumns, w.n_in % kColumns);
          Method::MakeTables(tail, 1,
                             tables + (n_whole - begin) * Method::kTableBytes);
        }
        for (int row = first; row < last; row += kPanelRows) {
          Method::AddBlocks(w.packed + row / kPanelRows * panel_bytes +
                                static_cast<size_t>(begin) * Method::kBytes,
                            end - begin, tables, sums + (row - first));
        }
      }
      Method::StoreRows(sums, x.s[t], w.scale, last - first,
                        y + t * y_stride + first);
    }
  }
}

}  // namespace tern

#endif  // KERNELS_TERNARY_LOOKUP_H_
