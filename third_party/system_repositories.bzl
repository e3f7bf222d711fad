"""Maps each external repository to an in-tree stub over Debian packages."""

_STUBS = [
    "com_github_google_benchmark",
    "com_github_grpc_grpc",
    "com_github_nlohmann_json",
    "com_google_absl",
    "com_google_googletest",
    "com_google_protobuf",
    "hwloc",
    "openssl",
    "pcre2",
    "remote_coverage_tools",
    "rules_cc",
    "utf8proc",
]

def system_repositories():
    for name in _STUBS:
        native.local_repository(name = name, path = "third_party/system/" + name)
    native.local_repository(name = "rules_java", path = "/usr/share/bazel/rules/java")
    native.local_repository(name = "rules_proto", path = "/usr/share/bazel/rules/proto")
    native.local_repository(name = "bazel_skylib", path = "/usr/share/bazel/tools/skylib")
    native.new_local_repository(
        name = "googletest_sources",
        build_file = "//third_party:system/googletest_sources.BUILD",
        path = "/usr/src/googletest",
    )
