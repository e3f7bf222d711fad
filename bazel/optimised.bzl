"""optimised_archives: static libraries as an optimised build makes them, whatever the outer one is."""

def _optimised_transition_impl(settings, attr):
    # Without the flags of sanitizers (.bazelrc).
    return {
        "//command_line_option:compilation_mode": "opt",
        "//command_line_option:copt": ["-ffp-contract=off"],
        "//command_line_option:linkopt": [],
    }

_optimised_transition = transition(
    implementation = _optimised_transition_impl,
    inputs = [],
    outputs = [
        "//command_line_option:compilation_mode",
        "//command_line_option:copt",
        "//command_line_option:linkopt",
    ],
)

def _optimised_archives_impl(ctx):
    files = [
        file
        for target in ctx.attr.targets
        for file in target[DefaultInfo].files.to_list()
        if file.extension == "a" and not file.basename.endswith(".pic.a")
    ]
    return [DefaultInfo(
        files = depset(files),
        runfiles = ctx.runfiles(files),
    )]

optimised_archives = rule(
    implementation = _optimised_archives_impl,
    attrs = {
        "targets": attr.label_list(
            cfg = _optimised_transition,
            doc = "Of cc_library.",
            mandatory = True,
        ),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)
