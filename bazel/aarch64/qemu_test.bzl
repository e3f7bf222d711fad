"""qemu_test: runs a cc_test of this repository, built for 64-bit ARM, in an emulator."""

# As .bazelrc has them, in its configuration asan.
_ADDRESS_SANITIZER = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]

# Of the outer configuration's flags the address sanitizer's alone reach the cross
# compiler: the others are for another compiler (--config=clang), or need what an
# emulator has not (--config=tsan).
def _options(sanitizers):
    return {
        "//command_line_option:compilation_mode": "opt",
        "//command_line_option:conlyopt": [],
        "//command_line_option:copt": ["-ffp-contract=off"] + sanitizers,
        "//command_line_option:cpu": "aarch64",
        "//command_line_option:crosstool_top": "//bazel/aarch64:toolchain",
        "//command_line_option:cxxopt": ["-std=c++17", "-Wall", "-Wextra", "-Wno-unused-parameter"],
        "//command_line_option:linkopt": sanitizers,
        "//command_line_option:platforms": "//bazel/aarch64:platform",
    }

_OUTPUTS = _options([]).keys()

def _optimised_impl(settings, attr):
    return _options([])

_optimised = transition(
    implementation = _optimised_impl,
    inputs = [],
    outputs = _OUTPUTS,
)

def _as_outside_impl(settings, attr):
    address = _ADDRESS_SANITIZER[0] in settings["//command_line_option:copt"]
    return _options(_ADDRESS_SANITIZER if address else [])

_as_outside = transition(
    implementation = _as_outside_impl,
    inputs = ["//command_line_option:copt"],
    outputs = _OUTPUTS,
)

def _qemu_test_impl(ctx):
    program = ctx.attr.test[0][DefaultInfo]
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(
        output = script,
        is_executable = True,
        # Leaks are sought by a debugger's means, which the emulator lacks. -L:
        # where Debian's cross compiler has the C and C++ libraries.
        content = """#!/bin/sh
export ASAN_OPTIONS=detect_leaks=0
%sexec qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu %s %s "$@"
""" % (
            "".join(["export %s='%s'\n" % item for item in sorted(ctx.attr.env.items())]),
            ctx.attr.qemu_cpu,
            program.files_to_run.executable.short_path,
        ),
    )
    return [DefaultInfo(executable = script, runfiles = program.default_runfiles)]

qemu_test = rule(
    implementation = _qemu_test_impl,
    test = True,
    attrs = {
        "env": attr.string_dict(doc = "Environment variables of the program."),
        "qemu_cpu": attr.string(
            default = "max",
            doc = "The processor that qemu-aarch64 plays: `qemu-aarch64 -cpu help` lists them.",
        ),
        "test": attr.label(
            cfg = _as_outside,
            doc = "A cc_test. Arguments of this test are passed on to it.",
            mandatory = True,
        ),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)

def _for_aarch64_impl(ctx):
    files = depset(transitive = [
        target[DefaultInfo].files
        for target in ctx.attr.targets
    ])
    return [DefaultInfo(
        files = files,
        runfiles = ctx.runfiles(transitive_files = files),
    )]

for_aarch64 = rule(
    implementation = _for_aarch64_impl,
    doc = "The files of targets, built for 64-bit ARM and optimised.",
    attrs = {
        "targets": attr.label_list(cfg = _optimised, mandatory = True),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)
