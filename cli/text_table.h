#ifndef CLI_TEXT_TABLE_H_
#define CLI_TEXT_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tern {

// The rows in columns as wide as their widest cell, two spaces apart; the first
// row is the heading. Columns whose cells below it are all numbers (with or
// without a unit) or dashes are aligned to the right. Each row ends with a \n.
std::string TextTable(const std::vector<std::vector<std::string>>& rows);

// "512 B", "1.5 MiB", "12 GiB".
std::string FormatBytes(int64_t bytes);

}  // namespace tern

#endif  // CLI_TEXT_TABLE_H_
