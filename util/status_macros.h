#ifndef UTIL_STATUS_MACROS_H_
#define UTIL_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the current function with the status of `expr` unless it is OK.
#define RETURN_IF_ERROR(expr)                       \
  do {                                              \
    absl::Status tern_status_ = (expr);             \
    if (!tern_status_.ok()) return tern_status_;    \
  } while (0)

#define TERN_CONCAT_INNER_(a, b) a##b
#define TERN_CONCAT_(a, b) TERN_CONCAT_INNER_(a, b)

// ASSIGN_OR_RETURN(T value, StatusOr<T> expr): declares or assigns `value`, or
// returns the error from the current function.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL_(TERN_CONCAT_(tern_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                           \
  if (!statusor.ok()) return statusor.status();     \
  lhs = std::move(statusor).value()

#endif  // UTIL_STATUS_MACROS_H_
