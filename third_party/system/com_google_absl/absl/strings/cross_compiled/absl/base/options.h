#ifndef ABSL_BASE_OPTIONS_H_
#define ABSL_BASE_OPTIONS_H_

// Abseil's options where only its headers are used: found before the header of
// this name that Debian installs, and the same but for the second line.
#define ABSL_OPTION_USE_STD_ANY 0
#define ABSL_OPTION_USE_STD_STRING_VIEW 1
#define ABSL_OPTION_USE_STD_OPTIONAL 0
#define ABSL_OPTION_USE_STD_VARIANT 0
#define ABSL_OPTION_USE_INLINE_NAMESPACE 1
#define ABSL_OPTION_INLINE_NAMESPACE_NAME debian3
#define ABSL_OPTION_HARDENED 1

#endif  // ABSL_BASE_OPTIONS_H_
