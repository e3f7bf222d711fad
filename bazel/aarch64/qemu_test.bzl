"""qemu_test: runs a cc_test of this repository, built for 64-bit ARM, in an emulator."""

# Nothing of the outer configuration's flags reaches the cross compiler: they are
# for another compiler (--config=clang) or need libraries that it lacks
# (sanitizers).
def _aarch64_transition_impl(settings, attr):
    return {
        "//command_line_option:compilation_mode": "opt",
        "//command_line_option:conlyopt": [],
        "//command_line_option:copt": ["-ffp-contract=off"],
        "//command_line_option:cpu": "aarch64",
        "//command_line_option:crosstool_top": "//bazel/aarch64:toolchain",
        "//command_line_option:cxxopt": ["-std=c++17", "-Wall", "-Wextra", "-Wno-unused-parameter"],
        "//command_line_option:linkopt": [],
        "//command_line_option:platforms": "//bazel/aarch64:platform",
    }

_aarch64_transition = transition(
    implementation = _aarch64_transition_impl,
    inputs = [],
    outputs = [
        "//command_line_option:compilation_mode",
        "//command_line_option:conlyopt",
        "//command_line_option:copt",
        "//command_line_option:cpu",
        "//command_line_option:crosstool_top",
        "//command_line_option:cxxopt",
        "//command_line_option:linkopt",
        "//command_line_option:platforms",
    ],
)

def _qemu_test_impl(ctx):
    program = ctx.attr.test[0][DefaultInfo]
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(
        output = script,
        is_executable = True,
        # -L: where Debian's cross compiler has the C and C++ libraries.
        content = """#!/bin/sh
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
            cfg = _aarch64_transition,
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
    doc = "The files of targets, built for 64-bit ARM.",
    attrs = {
        "targets": attr.label_list(cfg = _aarch64_transition, mandatory = True),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)
