"""Debian's cross compiler for 64-bit ARM as a Bazel C++ toolchain.

Only tests are built with it, for an instruction set that the machine at hand
lacks: qemu_test.bzl.
"""

load("@rules_cc//cc:defs.bzl", "cc_common")
load(
    "@bazel_tools//tools/cpp:cc_toolchain_config_lib.bzl",
    "feature",
    "flag_group",
    "flag_set",
    "tool_path",
)
load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")

_PREFIX = "/usr/bin/aarch64-linux-gnu-"

_TOOLS = {
    "ar": "ar",
    "cpp": "cpp",
    "gcc": "g++",
    "gcov": "gcov",
    "ld": "ld",
    "nm": "nm",
    "objdump": "objdump",
    "strip": "strip",
}

def _aarch64_toolchain_config_impl(ctx):
    compile_flags = feature(
        name = "tern_compile_flags",
        enabled = True,
        flag_sets = [flag_set(
            actions = [ACTION_NAMES.c_compile, ACTION_NAMES.cpp_compile],
            # As Bazel's own toolchain optimises.
            flag_groups = [flag_group(flags = ["-O2", "-DNDEBUG", "-fno-canonical-system-headers"])],
        )],
    )
    return cc_common.create_cc_toolchain_config_info(
        ctx = ctx,
        features = [compile_flags],
        cxx_builtin_include_directories = [
            "/usr/aarch64-linux-gnu/include",
            "/usr/include",
            "/usr/lib/gcc-cross/aarch64-linux-gnu",
        ],
        toolchain_identifier = "aarch64-linux-gnu",
        host_system_name = "local",
        target_system_name = "aarch64-linux-gnu",
        target_cpu = "aarch64",
        target_libc = "glibc",
        compiler = "gcc",
        abi_version = "gcc",
        abi_libc_version = "glibc",
        tool_paths = [
            tool_path(name = name, path = _PREFIX + tool)
            for name, tool in _TOOLS.items()
        ],
    )

aarch64_toolchain_config = rule(
    implementation = _aarch64_toolchain_config_impl,
    provides = [CcToolchainConfigInfo],
)
